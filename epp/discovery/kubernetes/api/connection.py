"""The connection to one API server: requests, answers as bytes, streams of lines."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
import msgspec

from epp import __version__
from epp.discovery.kubernetes.api.credentials import SERVICE_ACCOUNT, ClusterCredentials
from epp.discovery.kubernetes.api.errors import (
    AnswerTooLarge,
    ApiUnreachable,
    ClusterError,
    StreamBroken,
    StreamSilent,
    error_of,
    one_line,
)
from epp.discovery.kubernetes.api.lines import LineSplitter
from epp.discovery.kubernetes.api.statistics import RequestStatistics
from epp.errors import UsageError

__all__ = ["ClusterConnection"]

logger = logging.getLogger(__name__)

_USER_AGENT: Final = f"epp/{__version__}"
_MAX_ERROR_BYTES: Final = 64 * 1024
_ANSWER_TIMEOUT_S: Final = 120.0
_UNAUTHORIZED: Final = 401
_FIRST_ERROR: Final = 300  # a redirection leads to nothing that could be meant
_JSON: Final = "application/json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML

# A peer that is gone without a word is noticed after 60 s, also where nothing is awaited; and the
# tables of what stands between do not forget a watch on which little happens.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", None), 30),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", None), 10),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", None), 3),
)


class ClusterConnection:
    """Requests to one API server. :meth:`open` comes first, :meth:`close` last.

    Without ``kubeconfig`` and ``context`` the credentials are those of the pod's service account
    where there is one, else of the file that kubectl would use. Paths are like
    ``/api/v1/namespaces/x/pods``; bodies anything that msgspec can turn into JSON.

    Every request raises ApiError for an answer that is an error and ApiUnreachable for none
    (:mod:`~epp.discovery.kubernetes.api.errors`). Credentials expire and are replaced: an answer of
    401, or trouble with TLS, makes it read them again and try once more. Nothing else is tried
    twice.

    An answer has ``max_body_bytes`` at most, and a line of a stream ``max_line_bytes``: an object
    of the API has 1.5 MiB at most, so AnswerTooLarge is raised for nothing that could be meant. All
    of an answer takes 120 s at most, and between two pieces of it ``read_timeout_s`` pass at most.
    """

    def __init__(
        self,
        kubeconfig: Path | None = None,
        context: str | None = None,
        *,
        service_account: Path = SERVICE_ACCOUNT,
        connect_timeout_s: float = 10.0,
        read_timeout_s: float = 30.0,
        max_body_bytes: int = 256 * 1024 * 1024,
        max_line_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        self.statistics = RequestStatistics()
        self._credentials = ClusterCredentials(kubeconfig, context, service_account=service_account)
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._max_body_bytes = max_body_bytes
        self._max_line_bytes = max_line_bytes
        self._renewal = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return self._credentials.server

    async def open(self) -> None:
        """Read the credentials; nothing is sent yet. Raises UsageError."""
        await self._credentials.load()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=_new_socket),
            headers={"User-Agent": _USER_AGENT, "Accept": _JSON, "Accept-Encoding": "gzip"},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections; requests under way end with ApiUnreachable."""
        if self._session is not None:
            await self._session.close()

    async def get(
        self, path: str, params: Mapping[str, str] | None = None, *, verb: str = "get"
    ) -> bytes:
        """Return the answer to a GET; ``verb`` is what it counts as: ``get`` or ``list``."""
        return await self._request(verb, "GET", path, params=params)

    async def create(self, path: str, body: object) -> bytes:
        """POST an object to its collection, and return it as it is stored."""
        return await self._request("create", "POST", path, body=body)

    async def replace(self, path: str, body: object) -> bytes:
        """PUT an object in the place of one that is there, and return it as it is stored. If it has
        a ``resourceVersion``, that must be the one that is there: else there is a conflict, 409."""
        return await self._request("replace", "PUT", path, body=body)

    async def patch(self, path: str, body: object) -> bytes:
        """Change an object by a merge patch (RFC 7396), and return it as it is stored. A
        ``resourceVersion`` in it must be the one that is there: else there is a conflict, 409."""
        return await self._request("patch", "PATCH", path, body=body, content_type=_MERGE_PATCH)

    async def apply(
        self, path: str, body: object, *, field_manager: str, force: bool = True
    ) -> bytes:
        """Apply an object on the server's side, and return it as it is stored. With ``force`` the
        fields of ``body`` are taken from other managers that have them."""
        params = {"fieldManager": field_manager, "force": "true" if force else "false"}
        return await self._request(
            "apply", "PATCH", path, params=params, body=body, content_type=_APPLY
        )

    async def delete(self, path: str, body: object = None) -> bytes:
        """DELETE an object; ``body`` may hold DeleteOptions."""
        return await self._request("delete", "DELETE", path, body=body)

    async def stream(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        idle_limit_s: float = 90.0,
        on_open: Callable[[], None] | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the lines of the answer to a GET as they come, until the server ends it.

        ``on_open`` is called when the headers are there. What goes wrong after that is raised as
        StreamBroken, a silence of more than ``idle_limit_s`` as StreamSilent, which both are
        ApiUnreachable. To be closed (``contextlib.aclosing``) by who leaves it early.
        """
        splitter = LineSplitter(self._max_line_bytes)
        request = _Request(
            verb="watch",
            method="GET",
            path=path,
            params=params,
            limits=aiohttp.ClientTimeout(
                sock_connect=self._connect_timeout_s, sock_read=idle_limit_s
            ),
            headers={"Accept-Encoding": "identity"},
        )
        async with self._answer(request) as response:
            if on_open is not None:
                on_open()
            try:
                async for part in response.content.iter_any():
                    for line in splitter.feed(part):
                        yield line
            except aiohttp.SocketTimeoutError:
                raise StreamSilent(f"GET {path}: nothing came for {idle_limit_s:g} s") from None
            except (aiohttp.ClientError, OSError) as error:
                raise StreamBroken(f"GET {path}: {_reason(error)}") from None
            if rest := splitter.end():
                yield rest

    async def _request(
        self,
        verb: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = _JSON,
    ) -> bytes:
        request = _Request(
            verb=verb,
            method=method,
            path=path,
            params=params,
            limits=aiohttp.ClientTimeout(
                total=_ANSWER_TIMEOUT_S,
                sock_connect=self._connect_timeout_s,
                sock_read=self._read_timeout_s,
            ),
            data=None if body is None else msgspec.json.encode(body),
            headers={} if body is None else {"Content-Type": content_type},
        )
        async with self._answer(request) as response:
            try:
                return await _read(response, self._max_body_bytes)
            except (aiohttp.ClientError, OSError) as error:
                raise ApiUnreachable(f"{request}: {_reason(error)}") from None

    @contextlib.asynccontextmanager
    async def _answer(self, request: "_Request") -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, once it is known to be none of an error."""
        async with await self._send(request) as response:
            if response.status < _FIRST_ERROR:
                yield response
                return
            try:
                body = await _read(response, _MAX_ERROR_BYTES)
            except (ClusterError, aiohttp.ClientError, OSError):
                body = b""  # the status says enough
            raise error_of(
                str(request),
                body,
                status=response.status,
                phrase=response.reason or "",
                retry_after=response.headers.get("Retry-After"),
            )

    async def _send(self, request: "_Request") -> aiohttp.ClientResponse:
        """Send a request, with new credentials a second time if those that are known are no good,
        and return what comes. Raises ApiUnreachable."""
        generation = self._credentials.generation
        try:
            response = await self._send_once(request)
        except (aiohttp.ClientError, OSError) as error:
            if not isinstance(error, ssl.SSLError) or not await self._renew(generation):
                raise self._no_answer(request, error) from None
        else:
            if response.status != _UNAUTHORIZED or not await self._renew(generation):
                return response
            response.release()
        try:
            return await self._send_once(request)
        except (aiohttp.ClientError, OSError) as error:
            raise self._no_answer(request, error) from None

    async def _send_once(self, request: "_Request") -> aiohttp.ClientResponse:
        assert self._session is not None, "open() comes first"
        credentials = self._credentials
        try:
            response = await self._session.request(
                request.method,
                credentials.server + request.path,
                params=request.params,
                data=request.data,
                headers={**request.headers, **await credentials.headers()},
                timeout=request.limits,
                ssl=credentials.tls,
                server_hostname=credentials.server_name,
                proxy=credentials.proxy,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError):
            self.statistics.unreachable(request.verb)
            raise
        self.statistics.answered(request.verb, response.status)
        return response

    def _no_answer(self, request: "_Request", error: BaseException) -> ApiUnreachable:
        return ApiUnreachable(f"{request} at {self.server}: {_reason(error)}")

    async def _renew(self, generation: int) -> bool:
        """Read the credentials again, unless another request has done so since; whether they are
        other than those of ``generation``."""
        async with self._renewal:
            if self._credentials.generation == generation:
                try:
                    await self._credentials.load()
                except UsageError as error:
                    logger.warning("credentials stay as they are: %s", error)
                    return False
                logger.info("credentials for %s were read again", self.server)
            return True


class _Request(NamedTuple):
    verb: str
    method: str
    path: str
    params: Mapping[str, str] | None
    limits: aiohttp.ClientTimeout
    headers: Mapping[str, str]
    data: bytes | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > max_bytes:
            raise AnswerTooLarge(
                f"{response.method} {response.url.path}: an answer of more than {max_bytes} bytes"
            )
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return one_line(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):  # whose text is full of our own objects
        cause = error.os_error
        number = 0 if isinstance(cause, ssl.SSLError) else cause.errno or 0
        return os.strerror(number) if number > 0 else one_line(cause.strerror or cause)
    if isinstance(error, aiohttp.ServerTimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection broke off in the middle of the answer"
    return one_line(error) or type(error).__name__


def _new_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    for level, option, value in _KEEPALIVE:
        if option is not None:
            made.setsockopt(level, option, value)
    return made
