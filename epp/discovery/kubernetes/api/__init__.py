"""The talk with one API server: requests, answers, credentials, errors."""
