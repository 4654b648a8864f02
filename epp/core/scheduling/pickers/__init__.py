"""Pickers: which candidate it is, by the scores."""
