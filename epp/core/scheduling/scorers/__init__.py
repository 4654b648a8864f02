"""Scorers: how good each candidate is for a request, from 0 to 1."""
