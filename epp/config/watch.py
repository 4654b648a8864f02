"""Reading a configuration again: when its file has changed, or when told to."""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from epp.config.picker_config import read_bytes
from epp.errors import UsageError

__all__ = ["ConfigWatch"]

logger = logging.getLogger(__name__)

# A change is read once it has stood still for this long: a file is seldom written in one go.
_SETTLE_S = 0.1
_SETTLE_ROUNDS = 20

_T = TypeVar("_T")
_Signature = tuple[int, int, int, int]


class ConfigWatch(Generic[_T]):
    """Looks at a file every ``poll_interval_s`` and calls ``read`` when its content is another.

    The look is at the file's signature and not by inotify, which knows neither NFS nor the symlinks
    that Kubernetes swaps when it updates a mounted ConfigMap.
    """

    def __init__(self, path: Path, read: Callable[[], _T], *, poll_interval_s: float = 1.0) -> None:
        self._path = path
        self._read = read
        self._poll_interval_s = poll_interval_s
        self._signature = _signature(path)
        self._digest = _digest(path)
        self._is_poked = asyncio.Event()

    def poke(self) -> None:
        """Look now, and say so in the log also where nothing has changed."""
        self._is_poked.set()

    async def run(
        self, on_config: Callable[[_T], None], on_error: Callable[[UsageError], None]
    ) -> None:
        """Watch until cancelled. ``on_config`` is called with what ``read`` returns, ``on_error``
        with the UsageError that it raises instead, once for each change."""
        while True:
            try:
                await asyncio.wait_for(self._is_poked.wait(), self._poll_interval_s)
            except TimeoutError:
                is_poked = False
            else:
                self._is_poked.clear()
                is_poked = True
            if not await self._has_changed(even_if_untouched=is_poked):
                if is_poked:
                    logger.info("configuration unchanged file=%s", self._path)
                continue
            try:
                config = await asyncio.to_thread(self._read)
            except UsageError as error:
                on_error(error)
            else:
                on_config(config)

    async def _has_changed(self, *, even_if_untouched: bool) -> bool:
        signature = await asyncio.to_thread(_signature, self._path)
        if signature == self._signature and not even_if_untouched:
            return False
        for _ in range(_SETTLE_ROUNDS):
            await asyncio.sleep(min(_SETTLE_S, self._poll_interval_s))
            before, signature = signature, await asyncio.to_thread(_signature, self._path)
            if signature == before:
                break
        digest = await asyncio.to_thread(_digest, self._path)
        is_other = digest != self._digest
        self._signature, self._digest = signature, digest
        return is_other


def _signature(path: Path) -> _Signature | None:
    """Return what changes with the file, None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _digest(path: Path) -> bytes:
    try:
        return hashlib.blake2b(read_bytes(path), digest_size=16).digest()
    except UsageError:
        return b""
