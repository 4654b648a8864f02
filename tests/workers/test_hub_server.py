"""A core and workers of it in one process, over real sockets."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, generate_latest

from epp.clock import Alarm, monotonic_s
from epp.config import ServeOptions
from epp.core.pools import Pools
from epp.core.resources import ModelTarget, PoolResources, PoolSpec, RewriteRule
from epp.core.router import Router
from epp.core.scheduling import LeastLoaded
from epp.core.timers import Timers
from epp.proxy.health import Health
from epp.workers import hub_server as hub_server_module
from epp.workers import worker as worker_module
from epp.workers.hub import Session
from epp.workers.hub_server import CoreSeat, HubServer
from epp.workers.link import listen
from epp.workers.messages import WorkerMessage
from epp.workers.metrics import WorkerMetrics
from epp.workers.tally import Tally
from epp.workers.worker import Worker, WorkerSeat

from ..core.support import CountingRecorder, at_most, destination, resources
from ..e2e.support import eventually
from ..proxy.ext_proc_peer import Proxy, body, destination_of, headers, response_headers
from ..proxy.tls_peers import Pair

SERVING = health_pb2.HealthCheckResponse.SERVING


class Core:
    """The core's side, with a socket that outlives it."""

    def __init__(self, seat: CoreSeat, workers: int) -> None:
        timers = Timers()
        self.alarm = Alarm(timers)
        self.recorder = CountingRecorder()
        self.router = Router(
            scheduler=LeastLoaded(),
            options=ServeOptions(manifests=()).flow,
            make_detector=at_most(1),
            timers=timers,
            rng=random.Random(0),
            recorder=self.recorder,
        )
        self.health = Health()
        self.tally = Tally(seat.restarts)
        self.pools = Pools(lambda _key: self.router, self.recorder)
        self.server = HubServer(
            self.pools,
            seat,
            workers=workers,
            timers=timers,
            health=self.health,
            tally=self.tally,
            may_serve=lambda: self.pools.is_ready,
            on_change=self._tell_health,
        )
        self.metrics = CollectorRegistry()
        self.metrics.register(WorkerMetrics(self.server.hub, self.tally, workers))

    async def start(self) -> None:
        self.alarm.start()
        await self.health.start()
        self.pools.apply(resources([1]), monotonic_s())
        self.server.hub.announce_resources(resources([1]))
        await self.server.start("127.0.0.1", 1234)
        await self.health.set_ready(True)

    def _tell_health(self) -> None:
        self.telling = asyncio.create_task(self.health.set_ready(self.server.has_workers))

    async def stop(self, grace_s: float = 1.0) -> None:
        await self.server.stop(grace_s)
        self.alarm.stop()

    def page(self) -> str:
        return generate_latest(self.metrics).decode()


class Stage:
    """Where cores and workers come and go."""

    def __init__(self, exits: AsyncExitStack, workers: int) -> None:
        self._exits = exits
        self._workers = workers
        self._listener = exits.enter_context(listen(8))
        self.tasks: list[asyncio.Task[None]] = []

    async def core(self, restarts: int = 0) -> Core:
        """Make a core, which is not started."""
        # Each core has a copy, as each process has, and closes that.
        listener = self._exits.enter_context(self._listener.dup())
        listener.setblocking(False)
        return Core(CoreSeat(listener=listener, restarts=restarts), self._workers)

    def worker(self, number: int = 0, **options: object) -> Worker:
        """Start a worker; it ends with the stage at the latest."""
        seat = WorkerSeat(number=number, restarts=0, core_address=self._listener.getsockname())
        values = {"host": "127.0.0.1", "grpc_port": 0, "transport": "http2", "workers": 2}
        worker = Worker(
            ServeOptions(manifests=(), **{**values, **options}),  # type: ignore[arg-type]
            seat,
            lambda: None,
        )
        self.tasks.append(asyncio.create_task(worker.run()))
        return worker


@pytest.fixture
async def exits() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def stage(exits: AsyncExitStack) -> AsyncIterator[Stage]:
    stage = Stage(exits, workers=1)
    yield stage
    for task in stage.tasks:
        task.cancel()
    await asyncio.gather(*stage.tasks, return_exceptions=True)


@asynccontextmanager
async def proxy_of(worker: Worker) -> AsyncIterator[Proxy]:
    proxy = Proxy(worker._transport.port)
    try:
        yield proxy
    finally:
        await proxy.channel.close()


async def is_serving(proxy: Proxy) -> bool:
    stub = health_pb2_grpc.HealthStub(proxy.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service="readiness"))
    return bool(answer.status == SERVING)


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
async def test_a_request_at_a_worker_is_decided_by_the_core(stage: Stage, transport: str) -> None:
    worker = stage.worker(transport=transport)
    core = await stage.core()
    await core.start()
    assert core.server.port == 1234
    assert core.server.has_workers
    async with proxy_of(worker) as proxy:
        assert await is_serving(proxy)
        stream = proxy.stream()
        await stream.send(headers())
        await stream.send(body(b"hello"))
        assert destination_of(await stream.reply()) == destination(1)
        assert await stream.body("request_body") == b"hello"
        assert core.router.pool.total_in_flight == 1
        await stream.send(response_headers())
        await stream.reply()
        await eventually(lambda: core.router.pool.total_in_flight == 0)
        stream.call.cancel()
    await core.stop()
    await asyncio.gather(*stage.tasks)


async def test_a_worker_listens_when_it_knows_the_pool_and_not_before(stage: Stage) -> None:
    worker = stage.worker()
    core = await stage.core()
    starting = asyncio.create_task(core.start())
    assert not worker._transport.port
    await starting
    assert worker._transport.port
    await core.stop()


async def test_a_worker_serves_tls_and_tells_the_core_whom_it_refused(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_STATS_EVERY_S", 0.02)
    pair = Pair()
    (tmp_path / "tls.crt").write_bytes(pair.certificate)
    (tmp_path / "tls.key").write_bytes(pair.key)
    worker = stage.worker(cert_path=tmp_path)
    core = await stage.core()
    refused: list[str] = []
    core.server.hub._tally = Tally(on_handshake_refused=refused.append)
    await core.start()
    context = ssl.create_default_context(cadata=pair.root.decode())
    context.set_alpn_protocols(["h2"])
    port = worker._transport.port
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    writer.close()
    _, plaintext = await asyncio.open_connection("127.0.0.1", port)
    plaintext.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    await eventually(lambda: refused == ["plaintext"])
    plaintext.close()
    await core.stop()


async def test_workers_tell_conversations_apart_as_long_as_a_pool_has_choices(
    stage: Stage,
) -> None:
    worker = stage.worker()
    core = await stage.core()
    await core.start()
    targets = tuple(ModelTarget(model, 50) for model in ("blue", "green"))
    split = PoolResources(
        pool=PoolSpec(name="split"), rewrites=(RewriteRule(models=("m",), targets=targets),)
    )
    assert not worker._claims.reads_conversation
    core.server.hub.announce_resources(split)
    await eventually(lambda: worker._claims.reads_conversation)
    core.server.hub.announce_gone(split.pool.key)
    await eventually(lambda: not worker._claims.reads_conversation)


async def test_readiness_follows_the_workers(stage: Stage) -> None:
    stage.worker()
    core = await stage.core()
    await core.start()
    assert core.health.status("readiness") == SERVING
    stage.tasks[0].cancel()
    await eventually(lambda: core.health.status("readiness") != SERVING)
    assert not core.server.has_workers
    stage.worker()
    await eventually(lambda: core.health.status("readiness") == SERVING)
    assert core.server.has_workers
    await core.stop()


async def test_workers_know_of_the_drain(stage: Stage) -> None:
    worker = stage.worker()
    core = await stage.core()
    await core.start()
    async with proxy_of(worker) as proxy:
        assert await is_serving(proxy)
        core.pools.begin_drain()
        await core.health.set_ready(False)

        async def is_not_serving() -> bool:
            return not await is_serving(proxy)

        await eventually(is_not_serving)
    await core.stop()


async def test_a_worker_that_is_terminated_leaves_in_good_order(stage: Stage) -> None:
    worker = stage.worker()
    core = await stage.core()
    await core.start()
    worker._terminate()
    await stage.tasks[0]
    await eventually(lambda: core.server.hub.connected == 0)
    await core.stop()


async def test_a_worker_that_is_terminated_before_there_was_a_core_just_ends(
    stage: Stage,
) -> None:
    worker = stage.worker()
    await asyncio.sleep(0)
    worker._terminate()
    async with asyncio.timeout(5.0):
        await stage.tasks[0]


async def test_the_core_does_not_wait_for_every_worker_for_ever(
    exits: AsyncExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub_server_module, "_ALL_LISTENING_S", 0.1)
    stage = Stage(exits, workers=2)
    core = await stage.core()
    starting = asyncio.create_task(core.start())
    await eventually(lambda: "workers listening: 0 of 2" in caplog.text)
    assert not starting.done()
    stage.worker()
    await starting
    assert core.server.has_workers
    await core.stop()
    await asyncio.gather(*stage.tasks)


async def test_the_core_does_not_wait_for_a_worker_that_does_not_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub_server_module, "_GOODBYE_S", 0.1)
    worker = stage.worker()
    core = await stage.core()
    await core.start()
    worker._stop.set = lambda: None  # type: ignore[method-assign]
    await core.stop(0.0)
    assert "workers that did not end: 1" in caplog.text


async def test_a_core_that_hangs_is_taken_for_gone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_module, "_STATS_EVERY_S", 0.02)
    monkeypatch.setattr(worker_module, "_SILENCE_S", 0.2)
    worker = stage.worker(core_gap_timeout_s=0.1)
    core = await stage.core()
    await core.start()
    hub = core.server.hub
    takes, unheard = hub.received, []

    def hang(session: Session, messages: Iterable[WorkerMessage], now: float) -> None:
        unheard.append((session, messages))

    hub.received = hang  # type: ignore[method-assign]
    async with proxy_of(worker) as proxy:
        stream = proxy.stream()
        await stream.send(headers())
        await stream.send(body(b"hello"))
        assert destination_of(await stream.reply()) == destination(1), "the worker has decided"
        assert "the core does not answer" in caplog.text
        hub.received = takes  # type: ignore[method-assign]
        for session, messages in unheard:
            if session is unheard[-1][0]:  # the others are over
                takes(session, messages, monotonic_s())
        await eventually(lambda: core.router.pool.total_in_flight == 1)
        assert core.recorder.adoptions == 1
        stream.call.cancel()
        await eventually(lambda: core.router.pool.total_in_flight == 0)
    await eventually(lambda: core.tally.degraded_picks == 1)
    assert core.tally.degraded_s > 0.1
    await core.stop()


async def test_another_core_takes_over(stage: Stage) -> None:
    worker = stage.worker()
    first = await stage.core()
    await first.start()
    async with proxy_of(worker) as proxy:
        stream = proxy.stream()
        await stream.send(headers())
        await stream.send(body(b"hello"))
        destination_of(await stream.reply())
        assert first.server._server is not None
        first.server._server.close()
        for link in list(first.server._links):
            link.abort()
        assert await is_serving(proxy), "a worker without a core goes on"
        second = await stage.core(restarts=1)
        await second.start()
        assert second.router.pool.total_in_flight == 1
        stream.call.cancel()
        await eventually(lambda: second.router.pool.total_in_flight == 0)
    page = second.page()
    assert "llm_d_epp_core_restarts_total 1.0" in page
    await second.stop()
    first.alarm.stop()


async def test_metrics_of_workers(stage: Stage) -> None:
    core = await stage.core()
    page = core.page()
    for line in (
        "llm_d_epp_workers 0.0",
        "llm_d_epp_degraded 1.0",
        "llm_d_epp_worker_restarts_total 0.0",
        "llm_d_epp_core_restarts_total 0.0",
        "llm_d_epp_degraded_seconds_total 0.0",
        "llm_d_epp_degraded_picks_total 0.0",
        'llm_d_epp_degraded_refusals_total{outcome="expired"} 0.0',
    ):
        assert line in page
    stage.worker()
    await core.start()
    assert "llm_d_epp_workers 1.0" in core.page()
    assert "llm_d_epp_degraded 0.0" in core.page()
    assert 'llm_d_epp_worker_streams_inflight{worker="0"} 0.0' in core.page()
    assert core.server.open_streams == 0
    await core.stop()
