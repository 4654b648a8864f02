"""Filters: which candidates are out of the question for a request."""
