"""Small questions to a process that may still be starting: do you answer yet?"""

import asyncio
from collections.abc import Awaitable, Callable

from epp.core.resources import join_host_port

__all__ = ["Probe", "all_ready", "http_ready", "tcp_ready"]

Probe = Callable[[], Awaitable[bool]]
"""Asked again and again until it says True; it never raises."""

_ATTEMPT_TIMEOUT_S = 2.0


def all_ready(*probes: Probe) -> Probe:
    """Return a probe that is content when all of ``probes`` are."""

    async def ask() -> bool:
        return all(await asyncio.gather(*(probe() for probe in probes)))

    return ask


def http_ready(host: str, port: int, path: str) -> Probe:
    """Return a probe that is content with a 200 for ``GET path``."""
    authority = join_host_port(host, port)
    # Not HTTP/1.0, which Envoy refuses with 426.
    request = f"GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode()

    async def ask() -> bool:
        try:
            async with asyncio.timeout(_ATTEMPT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    writer.write(request)
                    status_line = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False
        return status_line.startswith(b"HTTP/") and status_line.split()[1:2] == [b"200"]

    return ask


def tcp_ready(host: str, port: int) -> Probe:
    """Return a probe that is content with a listening port."""

    async def ask() -> bool:
        try:
            async with asyncio.timeout(_ATTEMPT_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    return ask
