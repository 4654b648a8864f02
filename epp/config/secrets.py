"""Keys that plugins sign with: read from files, or drawn by chance."""

import secrets
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["Secrets"]

_LEAST_BYTES: Final = 16
_MOST_BYTES: Final = 4096
_RANDOM_BYTES: Final = 32


class Secrets:
    """The keys of one configuration, by path, each read once: what is made of the configuration
    later, also in other processes that are forked from this one, has the same keys.

    The path "" stands for a key that is drawn by chance, once for this process and those that are
    forked from it: what was signed with it stays good when a configuration is read again. Two of
    these are equal when they have the same paths; as text they tell no key.
    """

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}
        self._random_key = _random_key()

    def __eq__(self, other: object) -> bool:
        """Whether the paths are the same."""
        return isinstance(other, Secrets) and self._keys.keys() == other._keys.keys()

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        """Return how many there are."""
        return f"Secrets({len(self._keys)})"

    def get(self, path: str) -> bytes:
        """Return the key of a file, without blanks at its ends. Raises ValueError for one that
        cannot be read or has less than 16 bytes, or more than 4096."""
        if path not in self._keys:
            self._keys[path] = _read(path) if path else self._random_key
        return self._keys[path]


@cache
def _random_key() -> bytes:
    return secrets.token_bytes(_RANDOM_BYTES)


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1).strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"cannot read the key file {path}: {reason}") from None
    if not _LEAST_BYTES <= len(data) <= _MOST_BYTES:
        found = "more" if len(data) > _MOST_BYTES else str(len(data))
        raise ValueError(
            f"found {found} bytes in the key file {path}; expected {_LEAST_BYTES} to {_MOST_BYTES}"
        )
    return data
