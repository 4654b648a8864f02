"""The HTTP side for those who watch: metrics, probes, and why a request would go where."""

from collections.abc import Callable

import msgspec
from aiohttp import web

from epp.core.headers import Headers
from epp.errors import UsageError
from epp.observability.explain import PickAnswer

__all__ = ["ObservabilityServer"]

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PATH = (b":path", b"/v1/chat/completions")


class ObservabilityServer:
    """Serves the metrics page ``/metrics``, two probes, and explanations.

    ``/healthz`` answers 200 as long as the process turns its loop; ``/readyz`` 200 or 503 as
    ``is_ready`` says. ``/debug/explain-pick`` takes an inference request, headers and body of up to
    ``max_body_bytes``, and answers with what ``explain`` says of it, as JSON. ``port`` is the bound
    port once :meth:`start` has returned.
    """

    def __init__(
        self,
        render_metrics: Callable[[], bytes],
        is_ready: Callable[[], bool],
        explain: Callable[[Headers, bytes], PickAnswer],
        *,
        max_body_bytes: int,
    ) -> None:
        self._render_metrics = render_metrics
        self._is_ready = is_ready
        self._explain = explain
        self._max_body_bytes = max_body_bytes
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes any that is free. Raises UsageError if the address cannot be had."""
        application = web.Application(client_max_size=self._max_body_bytes)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_post("/debug/explain-pick", self._explain_pick)
        # What is compressed is decompressed within bounds by whoever explains it.
        runner = web.AppRunner(application, access_log=None, auto_decompress=False)
        await runner.setup()
        site = web.TCPSite(runner, host, port)
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

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._render_metrics(), headers={"content-type": _METRICS_TYPE})

    async def _explain_pick(self, request: web.Request) -> web.Response:
        body = await request.read()
        pairs = [(name.lower(), value) for name, value in request.raw_headers]
        answer = self._explain(Headers([_PATH, *pairs]), body)
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._is_ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready: no resources yet, or shutting down\n")
