"""Log lines that one can grep: time, level, logger, event with ``key=value``. Or JSON objects."""

import logging
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import msgspec

__all__ = ["LogFormat", "set_up_logging"]

LogFormat: TypeAlias = Literal["text", "json"]


class _Line(msgspec.Struct, omit_defaults=True):
    """What a line of JSON says; the names of the fields are those that zap has."""

    ts: str
    level: str
    logger: str
    msg: str
    process: str = ""
    stacktrace: str = ""


class _JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        line = _Line(
            ts=datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            level=record.levelname.lower(),
            logger=record.name,
            msg=record.getMessage(),
            process=self._process,
            stacktrace=trace,
        )
        return msgspec.json.encode(line).decode()


def set_up_logging(level: str, process: str = "", form: LogFormat = "text") -> None:
    """Log to standard error from this level on: debug, info, warning or error.

    ``process`` names the process where there are several.
    """
    name = f"{process} %(name)s" if process else "%(name)s"
    formatter: logging.Formatter = logging.Formatter(
        f"%(asctime)s %(levelname)s {name} %(message)s"
    )
    if form == "json":
        formatter = _JsonFormatter(process)
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
