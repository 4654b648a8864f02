"""One collection of an API server, followed: lists, watches, and what is known of it."""
