"""The errors that a user of the command line can cause and must understand."""

__all__ = ["UsageError"]


class UsageError(Exception):
    """Something the user gave cannot work: the command prints it as one line and exits with 2.

    The message names what was given, where it stands, and what was expected.
    """
