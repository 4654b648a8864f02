"""The HTTP side for those who watch: metrics, probes, and why a request would go where."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from epp.core.headers import Headers
from epp.errors import UsageError
from epp.observability.explain import PickAnswer

__all__ = ["Authorize", "ObservabilityServer"]

Authorize: TypeAlias = Callable[[str], Awaitable[tuple[int, str] | None]]
"""Says of a bearer token whether its owner may read: None, or the status and the sentence that the
answer is to have."""

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PATH = (b":path", b"/v1/chat/completions")
_LAST_WORDS_S: Final = 1.0
"""How long those who are being answered may keep the process from ending, and that twice: aiohttp
waits, cuts them off, and waits again. Its own time is a minute."""
_NOT_READY: Final = "not ready: no pool exists, another replica leads, or it is shutting down\n"
_OPEN_PATHS: Final = ("/healthz", "/readyz")


class ObservabilityServer:
    """Serves the metrics page ``/metrics``, made of the pieces that ``render_metrics`` returns, two
    probes, and explanations.

    ``/healthz`` answers 200 as long as the process turns its loop; ``/readyz`` 200 or 503 as
    ``is_ready`` says. ``/debug/explain-pick`` takes an inference request, headers and body of up to
    ``max_body_bytes``, and answers with what ``explain`` says of it, as JSON. With ``authorize``
    all but the probes is for those alone whom it lets read. ``port`` is the bound port once
    :meth:`start` has returned.
    """

    def __init__(
        self,
        render_metrics: Callable[[], Iterable[bytes]],
        is_ready: Callable[[], bool],
        explain: Callable[[Headers, bytes], PickAnswer],
        *,
        max_body_bytes: int,
        authorize: Authorize | None = None,
    ) -> None:
        self._authorize = authorize
        self._render_metrics = render_metrics
        self._is_ready = is_ready
        self._explain = explain
        self._max_body_bytes = max_body_bytes
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Listen, with TLS if it is given; port 0 takes any that is free.

        Raises UsageError if the address cannot be had.
        """
        middlewares = [] if self._authorize is None else [self._check_token]
        application = web.Application(client_max_size=self._max_body_bytes, middlewares=middlewares)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_post("/debug/explain-pick", self._explain_pick)
        # What is compressed is decompressed within bounds by whoever explains it.
        runner = web.AppRunner(
            application, access_log=None, auto_decompress=False, shutdown_timeout=_LAST_WORDS_S
        )
        await runner.setup()
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise UsageError(
                f"cannot listen on {host}:{port} for metrics: {error.strerror or error};"
                " choose another port with --metrics-port"
            ) from error
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the listener and its connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _check_token(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _OPEN_PATHS:
            return await handler(request)
        assert self._authorize is not None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or not token.isascii():
            return _denied(401, "expected a bearer token")
        denial = await self._authorize(token)
        return await handler(request) if denial is None else _denied(*denial)

    async def _metrics(self, _: web.Request) -> web.Response:
        pieces = []
        for piece in self._render_metrics():
            pieces.append(piece)
            await asyncio.sleep(0)  # others have their turn: pages of large pools take long
        return web.Response(body=b"".join(pieces), headers={"content-type": _METRICS_TYPE})

    async def _explain_pick(self, request: web.Request) -> web.Response:
        body = await request.read()
        pairs = [(name.lower(), value) for name, value in request.raw_headers]
        # HTTP/1.1's name for what the gateway's proxy calls the authority.
        authority = [(b":authority", value) for name, value in pairs if name == b"host"]
        answer = self._explain(Headers([_PATH, *authority, *pairs]), body)
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._is_ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text=_NOT_READY)


def _denied(status: int, text: str) -> web.Response:
    headers = {"www-authenticate": 'Bearer realm="epp"'} if status == 401 else None
    return web.Response(status=status, text=f"{text}\n", headers=headers)
