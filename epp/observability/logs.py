"""Log lines that one can grep: time, level, logger, event with ``key=value``."""

import logging

__all__ = ["set_up_logging"]


def set_up_logging(level: str) -> None:
    """Log to standard error from this level on: debug, info, warning or error."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
