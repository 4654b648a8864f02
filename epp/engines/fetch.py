"""Fetching one metrics page, within bounds.

The other side is a model server, possibly one that is broken, overloaded or not a model server at
all: whatever it sends, a fetch ends in time, holds a bounded number of bytes and goes nowhere else.
"""

import asyncio
import enum
import ssl
from typing import Final

import aiohttp

from epp.config.scrape import ScrapeOptions
from epp.core.parsing.decompress import decompressed
from epp.engines.credentials import Credentials

__all__ = ["Failure", "FetchError", "PageClient"]

_HEADERS: Final = {
    "Accept": "text/plain;version=0.0.4",
    # The network between is fast, and engines compress in the process that serves requests.
    "Accept-Encoding": "identity",
}
_KEEP_ALIVE_S: Final = 60.0
_OK: Final = 200


class Failure(enum.Enum):
    """Why a page could not be had."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TLS = "tls"
    BROKEN = "broken"
    STATUS = "status"
    TOO_LARGE = "too-large"
    UNREADABLE = "unreadable"


class FetchError(Exception):
    """A page could not be had."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


class PageClient:
    """Fetches pages over connections that are kept. To be made in a running loop, and closed.

    ``credentials`` are those of the options, which several clients can share. Raises UsageError for
    files of the options that cannot be used, where there are none yet.
    """

    def __init__(self, options: ScrapeOptions, credentials: Credentials | None = None) -> None:
        self._options = options
        self._now = asyncio.get_running_loop().time
        self._credentials = credentials or Credentials(options, self._now())
        self._server_name = options.server_name if options.scheme == "https" else None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # whoever calls sees to that
                keepalive_timeout=_KEEP_ALIVE_S,
            ),
            timeout=aiohttp.ClientTimeout(total=options.deadline_s),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # it would not know where to stop
            trust_env=False,
        )

    async def fetch(self, destination: str) -> bytes:
        """Return the page at this ``ip:port``. Raises FetchError."""
        options = self._options
        self._credentials.refresh(self._now())
        try:
            async with self._session.get(
                f"{options.scheme}://{destination}{options.path}",
                headers=self._credentials.headers,
                ssl=self._credentials.tls,
                server_hostname=self._server_name,
                allow_redirects=False,
            ) as response:
                if response.status != _OK:
                    raise FetchError(Failure.STATUS)
                body = await _read(response.content, options.max_page_bytes)
                encoding = response.headers.get("Content-Encoding", "identity")
        except TimeoutError:
            raise FetchError(Failure.TIMEOUT) from None
        except ssl.SSLError:  # aiohttp's are of that kind as well
            raise FetchError(Failure.TLS) from None
        except aiohttp.ClientConnectorError:
            raise FetchError(Failure.UNREACHABLE) from None
        except (aiohttp.ClientError, OSError):
            raise FetchError(Failure.BROKEN) from None
        if encoding.lower() == "identity":
            return body
        page = decompressed(body, encoding.encode(), max_bytes=options.max_page_bytes)
        if page is None:
            raise FetchError(Failure.UNREADABLE)
        return page

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


async def _read(stream: aiohttp.StreamReader, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in stream.iter_any():
        size += len(part)
        if size > max_bytes:
            raise FetchError(Failure.TOO_LARGE)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
