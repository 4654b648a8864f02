"""Names of headers, as they stand in parameters."""

import re
from typing import Final

__all__ = ["header_name"]

_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


def header_name(text: str, where: str, *, default: str) -> str:
    """Return the name of a header as requests have it, in lower case; the default where it is
    blank.

    Raises ValueError, naming the parameter ``where``, for what is no name of a header.
    """
    name = text.strip().lower()
    if not name:
        return default
    if not _NAME.fullmatch(name):
        raise ValueError(f"found {where} {text!r}; expected the name of a header")
    return name
