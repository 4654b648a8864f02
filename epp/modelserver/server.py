"""The HTTP server around the engine: routes, records, errors, life cycle."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from types import TracebackType

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from epp.core.resources import join_host_port
from epp.errors import UsageError
from epp.modelserver.engine import Engine
from epp.modelserver.errors import ApiError
from epp.modelserver.faults import FaultPlan, parse_fault
from epp.modelserver.generation import GenerationService
from epp.modelserver.journal import Journal, RequestRecord, ServerState
from epp.modelserver.metrics import EngineCollector
from epp.modelserver.options import ModelServerOptions
from epp.modelserver.runner import EngineRunner

__all__ = ["ModelServer"]

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_RecordedHandler = Callable[[web.Request, RequestRecord], Awaitable[web.StreamResponse]]

_BACKLOG = 4096
_CLIENT_CLOSED_REQUEST = 499
# Long enough that a proxy, and not the server, closes idle connections: a close that crosses a
# request on the wire looks like a failed request.
_KEEPALIVE_S = 3600.0
_MAX_HEADER_BYTES = 128 * 1024
# aiohttp takes 0 for "wait without end"; after this, exchanges that are still open are cut.
_SHUTDOWN_S = 0.1


class ModelServer:
    """A simulated model server on one port, usable as an async context manager.

    Raises :class:`UsageError` if there are adapters but no slots for them.
    """

    def __init__(self, options: ModelServerOptions) -> None:
        if options.loras and not options.engine.max_loras:
            raise UsageError("modelserver: --lora needs adapter slots, but --max-loras is 0")
        self.options = options
        self._engine = Engine(options.engine)
        self._journal = Journal()
        self._faults = FaultPlan()
        self._registry = EngineCollector(
            self._engine, options.model_names[0], lambda: self._journal.counts["aborted"]
        ).registry()
        self._engine_runner: EngineRunner | None = None
        self._web_runner: web.AppRunner | None = None
        self._port = options.port

    @property
    def port(self) -> int:
        """The port it listens on: after the start never 0."""
        return self._port

    @property
    def url(self) -> str:
        """Where it is reached, without a slash at the end."""
        return f"http://{join_host_port(self.options.host, self._port)}"

    def state(self) -> ServerState:
        """Return a snapshot of what it is doing and has done."""
        journal, stats = self._journal, self._engine.stats
        return ServerState(
            name=self.options.name,
            running=self._engine.num_running,
            waiting=self._engine.num_waiting,
            peak_running=stats.peak_running,
            in_flight=journal.in_flight,
            peak_in_flight=journal.peak_in_flight,
            **journal.counts,
            prefix_queried_tokens=stats.prefix_cache_queried_tokens,
            prefix_hit_tokens=stats.prefix_cache_hit_tokens,
            adapter_loads=stats.adapter_loads,
            started_ids=list(journal.started_ids),
            finished_ids=list(journal.finished_ids),
            requests=list(journal.requests),
        )

    async def start(self) -> None:
        """Begin to listen; raises :class:`UsageError` if the address cannot be had."""
        self._engine_runner = EngineRunner(self._engine)
        self._web_runner = web.AppRunner(
            self._application(self._engine_runner),
            access_log=None,
            auto_decompress=False,
            handler_cancellation=True,
            keepalive_timeout=_KEEPALIVE_S,
            max_field_size=_MAX_HEADER_BYTES,
            max_line_size=_MAX_HEADER_BYTES,
            shutdown_timeout=_SHUTDOWN_S,
        )
        await self._web_runner.setup()
        host, port = self.options.host, self.options.port
        try:
            await web.TCPSite(self._web_runner, host, port, backlog=_BACKLOG).start()
        except OSError as error:
            await self.stop()
            # The loop's own texts say more than the reason; gaierror has negative numbers.
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror
            raise UsageError(
                f"modelserver: cannot listen on {join_host_port(host, port)}, which --host and"
                f" --port ask for: {reason} (port 0 takes any free one)"
            ) from None
        self._port = self._web_runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and cut the exchanges that are still open."""
        if self._web_runner is not None:
            await self._web_runner.cleanup()
        if self._engine_runner is not None:
            self._engine_runner.close()

    async def __aenter__(self) -> "ModelServer":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _application(self, runner: EngineRunner) -> web.Application:
        app = web.Application(
            middlewares=[_answer_errors], client_max_size=self.options.max_body_bytes
        )
        app.on_response_prepare.append(self._sign)
        generation = GenerationService(self.options, runner, self._journal, self._faults)
        app.add_routes(
            [
                web.post("/v1/completions", self._recorded(generation.complete)),
                web.post("/v1/chat/completions", self._recorded(generation.chat)),
                web.get("/v1/models", self._recorded(self._models)),
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.get("/debug/state", self._state),
                web.post("/debug/faults", self._plan_fault),
                web.delete("/debug/faults", self._clear_fault),
                web.post("/debug/echo", self._recorded(self._echo)),
            ]
        )
        return app

    def _recorded(self, handler: _RecordedHandler) -> _Handler:
        """Return a handler whose requests are in the journal from their headers to their end."""

        async def handle(request: web.Request) -> web.StreamResponse:
            journal = self._journal
            record = journal.arrived(request.method, request.path_qs, request.raw_headers)
            # The end of another connection may have come with this arrival and be handled after it:
            # two turns of the loop later both have been.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, journal.note_peak)
            try:
                response = await handler(request, record)
                journal.ended(record, "finished")
                return response
            except asyncio.CancelledError:
                journal.ended(record, "aborted")
                raise
            except ConnectionError:
                journal.ended(record, "aborted")
                return web.Response(status=_CLIENT_CLOSED_REQUEST)
            finally:
                journal.ended(record, "failed")

        return handle

    async def _sign(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers["x-served-by"] = self.options.name

    async def _models(self, _request: web.Request, _record: RequestRecord) -> web.StreamResponse:
        names = self.options.model_names
        models = [_model(name, None) for name in names]
        models += [_model(name, names[0]) for name in self.options.loras]
        return _json({"object": "list", "data": models})

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        return web.Response()

    async def _metrics(self, _request: web.Request) -> web.StreamResponse:
        page = generate_latest(self._registry)
        return web.Response(body=page, headers={"content-type": CONTENT_TYPE_LATEST})

    async def _state(self, _request: web.Request) -> web.StreamResponse:
        return _json(self.state())

    async def _plan_fault(self, request: web.Request) -> web.StreamResponse:
        self._faults.set(parse_fault(await request.read()))
        return web.Response(status=204)

    async def _clear_fault(self, _request: web.Request) -> web.StreamResponse:
        self._faults.set(None)
        return web.Response(status=204)

    async def _echo(self, request: web.Request, _record: RequestRecord) -> web.StreamResponse:
        body = await request.read()
        headers = {
            "content-type": request.headers.get("content-type", "application/octet-stream"),
            "x-echo-bytes": str(len(body)),
        }
        return web.Response(body=body, headers=headers)


@web.middleware
async def _answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Turn errors, also those of the routing, into OpenAI's error objects."""
    try:
        return await handler(request)
    except ApiError as error:
        return _error(error, {})
    except web.HTTPClientError as error:
        allowed = {"allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        message = f"{error.reason}: {request.method} {request.path}"
        return _error(ApiError(error.status, message), allowed)


def _error(error: ApiError, headers: dict[str, str]) -> web.Response:
    return web.Response(
        body=error.body(), status=error.status, headers=headers, content_type="application/json"
    )


def _json(content: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), content_type="application/json")


def _model(name: str, parent: str | None) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "epp",
        "root": parent or name,
        "parent": parent,
    }
