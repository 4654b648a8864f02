"""Directories of manifest files, as blocking calls for a thread: what is there, and its bytes.

Watching is by signature, not by inotify, which knows neither NFS nor the symlinks that Kubernetes
swaps when it updates a mounted ConfigMap.
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from epp.discovery.manifests import ManifestFile

__all__ = ["Entry", "Snapshot", "read_directories", "scan"]

_SUFFIXES = (".yaml", ".yml", ".json")
_MAX_FILE_BYTES = 8 * 2**20
_MAX_FILES = 1000
_MAX_TOTAL_BYTES = 64 * 2**20
_ATTEMPTS = 5


class Entry(msgspec.Struct, frozen=True):
    """A file, or a directory that cannot be listed, as a poll sees it; equal while it is unchanged.

    ``problem`` is set instead of the numbers where the entry cannot be used.
    """

    path: str
    mtime_ns: int = 0
    ctime_ns: int = 0
    size_bytes: int = 0
    inode: int = 0
    problem: str = ""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The files of all directories at one moment; ``problems`` are those of reading them.

    ``digest`` is equal for equal names, bytes and problems.
    """

    signature: tuple[Entry, ...]
    files: tuple[ManifestFile, ...]
    problems: tuple[str, ...]
    digest: bytes


def scan(directories: Sequence[Path]) -> tuple[Entry, ...]:
    """Return the manifest files of the directories, in the order of their names.

    Those are the entries named ``*.yaml``, ``*.yml`` or ``*.json`` that are not hidden; directories
    inside are not entered.
    """
    return tuple(entry for directory in directories for entry in _scan_one(directory))


def read_directories(directories: Sequence[Path]) -> Snapshot:
    """Read all files, again if something changed meanwhile, so that all are of one moment."""
    before = scan(directories)
    for _ in range(_ATTEMPTS):
        files, problems = _read(before)
        after = scan(directories)
        if after == before:
            return _snapshot(after, files, problems)
        before = after
    names = ", ".join(str(directory) for directory in directories)
    return _snapshot(before, [], [f"{names}: the files change faster than they can be read"])


def _scan_one(directory: Path) -> list[Entry]:
    try:
        with os.scandir(directory) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.name.endswith(_SUFFIXES) and not entry.name.startswith(".")
            )
    except OSError as error:
        return [Entry(str(directory), problem=_reason(error))]
    if len(names) > _MAX_FILES:
        problem = f"found {len(names)} manifest files; expected up to {_MAX_FILES}"
        return [Entry(str(directory), problem=problem)]
    return [_examine(directory / name) for name in names]


def _examine(path: Path) -> Entry:
    try:
        # Through symlinks: what a ConfigMap's `..data` points at is what counts.
        status = path.stat()
    except OSError as error:
        return Entry(str(path), problem=_reason(error))
    problem = ""
    if not stat.S_ISREG(status.st_mode):
        problem = "not a regular file; expected a file with manifests"
    elif status.st_size > _MAX_FILE_BYTES:
        problem = f"found {status.st_size} bytes; expected up to {_MAX_FILE_BYTES}"
    return Entry(
        str(path),
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        size_bytes=status.st_size,
        inode=status.st_ino,
        problem=problem,
    )


def _read(entries: Sequence[Entry]) -> tuple[list[ManifestFile], list[str]]:
    files: list[ManifestFile] = []
    total_bytes = sum(entry.size_bytes for entry in entries)
    if total_bytes > _MAX_TOTAL_BYTES:
        text = f"found {total_bytes} bytes in all files; expected up to {_MAX_TOTAL_BYTES}"
        return files, [text]
    problems: list[str] = []
    for entry in entries:
        if entry.problem:
            problems.append(f"{entry.path}: {entry.problem}")
            continue
        try:
            with open(entry.path, "rb") as file:
                # One byte more than the scan saw: a file that grows is seen by the scan after.
                files.append(ManifestFile(entry.path, file.read(entry.size_bytes + 1)))
        except OSError as error:
            problems.append(f"{entry.path}: {_reason(error)}")
    return files, problems


def _snapshot(
    signature: tuple[Entry, ...], files: list[ManifestFile], problems: list[str]
) -> Snapshot:
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        for part in (os.fsencode(file.name), file.data):
            digest.update(len(part).to_bytes(8, "big") + part)
    for problem in problems:
        digest.update(problem.encode(errors="surrogateescape"))
    return Snapshot(
        signature=signature,
        files=tuple(files),
        problems=tuple(problems),
        digest=digest.digest(),
    )


def _reason(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"
