"""Log lines that one can grep: time, level, logger, event with ``key=value``."""

import logging

__all__ = ["set_up_logging"]


def set_up_logging(level: str, process: str = "") -> None:
    """Log to standard error from this level on: debug, info, warning or error.

    ``process`` names the process where there are several.
    """
    name = f"{process} %(name)s" if process else "%(name)s"
    logging.basicConfig(
        level=level.upper(), format=f"%(asctime)s %(levelname)s {name} %(message)s", force=True
    )
