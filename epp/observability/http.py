"""The HTTP side for people and machines that watch: ``/metrics``, ``/healthz``, ``/readyz``."""

from collections.abc import Callable

from aiohttp import web

from epp.errors import UsageError

__all__ = ["ObservabilityServer"]

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ObservabilityServer:
    """Serves the metrics page and two probes.

    ``/healthz`` answers 200 as long as the process turns its loop; ``/readyz`` 200 or 503 as
    ``is_ready`` says. ``port`` is the bound port once :meth:`start` has returned.
    """

    def __init__(self, render_metrics: Callable[[], bytes], is_ready: Callable[[], bool]) -> None:
        self._render_metrics = render_metrics
        self._is_ready = is_ready
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes any that is free. Raises UsageError if the address cannot be had."""
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        runner = web.AppRunner(application, access_log=None)
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

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._is_ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready: no resources yet, or shutting down\n")
