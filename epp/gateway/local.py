"""The local gateway: model servers, EPP and Envoy, started in this order and kept together."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic

import msgspec

from epp.core.resources import Endpoint, PoolResources
from epp.discovery import FileSource
from epp.discovery.directory import read_directories
from epp.discovery.manifests import parse_manifests
from epp.gateway.envoy_binary import envoy_command
from epp.gateway.options import BodyMode, GatewayOptions
from epp.gateway.probes import all_ready, http_ready, tcp_ready
from epp.gateway.processes import ProcessFailure, ProcessSpec, Supervisor
from epp.gateway.state import StateDirectory
from epp.gateway.terminal import Progress, RunningGateway, introduction, introduction_json

__all__ = ["LocalGateway", "UpOptions"]

_HOST = "127.0.0.1"
_DEFAULT_SLOTS = 4
# A log line that never left the buffer of a process that died would explain nothing.

_ENVIRONMENT = {"PYTHONUNBUFFERED": "1"}


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What ``epp up`` was asked for, with ports that were found free.

    ``server_ports`` has one port per simulated server. ``slots`` is how many requests each server
    runs at once; ``None`` is the default for simulated ones, and the EPP's own for others. The EPP
    sends it no more of them, unless its configuration ``names_detector`` that decides on it.
    """

    port: int
    metrics_port: int
    grpc_port: int
    health_port: int
    admin_port: int
    server_ports: tuple[int, ...]
    slots: int | None
    config_file: Path | None
    names_detector: bool
    manifests: Path | None
    pool_name: str | None
    pool_namespace: str | None
    envoy: Path
    envoy_concurrency: int
    response_body_mode: BodyMode
    as_json: bool


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifests make of the options: where the EPP reads, and which servers there are."""

    resources: PoolResources
    directories: tuple[Path, ...]
    simulated: tuple[Endpoint, ...]


class LocalGateway:
    """One run of ``epp up``."""

    def __init__(self, options: UpOptions, state: StateDirectory) -> None:
        self._options = options
        self._state = state
        self._progress = Progress(sys.stdout, quiet=options.as_json)
        self._supervisor = Supervisor(state.logs)
        self._stop = asyncio.Event()

    async def run(self) -> bool:
        """Start everything and keep it running; return whether it was stopped by the user.

        Raises :class:`~epp.errors.UsageError` for manifests that cannot be used.
        """
        plan = await self._plan()
        self._catch_signals()
        async with self._supervisor:
            work = asyncio.create_task(self._start_and_watch(plan))
            stopped = asyncio.create_task(self._stop.wait())
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in (work, stopped):
                task.cancel()
            failure, _ = await asyncio.gather(work, stopped, return_exceptions=True)
            if isinstance(failure, ProcessFailure):
                self._progress.say("Something failed: stopping the rest.")
                print(f"epp: {failure.report()}", file=sys.stderr, flush=True)
                return False
            if not isinstance(failure, asyncio.CancelledError) and failure is not None:
                raise failure
            self._progress.say("Stopping.")
        return True

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started with nohup: it shall outlive its terminal
            loop.add_signal_handler(number, self._asked_to_stop)

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():  # for the second time: no more patience
            self._supervisor.kill()
        self._stop.set()

    async def _plan(self) -> _Plan:
        options = self._options
        directory = options.manifests or self._state.default_manifests()
        directories: tuple[Path, ...] = (directory,)
        source = FileSource(
            directories,
            pool_names=() if options.pool_name is None else (options.pool_name,),
            pool_namespace=options.pool_namespace,
        )
        [resources] = await source.load()
        simulated: tuple[Endpoint, ...] = ()
        # Also endpoints that are not the pool's, or not to be found at the moment, are the user's.
        if not parse_manifests(read_directories(directories).files).endpoints:
            simulated = tuple(
                Endpoint(name=f"server-{number}", address=_HOST, port=port)
                for number, port in enumerate(options.server_ports, start=1)
            )
            directories += (self._state.write_endpoints(resources.pool, simulated),)
        return _Plan(resources=resources, directories=directories, simulated=simulated)

    async def _start_and_watch(self, plan: _Plan) -> None:
        if plan.simulated:
            await self._start("the model servers", lambda: map(self._model_server, plan.simulated))
        await self._start("the endpoint picker", lambda: [self._epp(plan)])
        await self._start("Envoy", lambda: [self._envoy(plan)])
        gateway = self._running(plan)
        if self._options.as_json:
            print(introduction_json(gateway), flush=True)
        else:
            objectives = plan.resources.objectives.values()
            self._progress.say("\n" + introduction(gateway, objectives))
        await self._supervisor.watch()

    async def _start(self, title: str, specs: Callable[[], Iterable[ProcessSpec]]) -> None:
        self._progress.begin(f"starting {title}")
        began_s = monotonic()
        started = await self._supervisor.start(specs())
        names = ", ".join(process.name for process in started)
        self._progress.done(f"{title} ready after {monotonic() - began_s:.1f} s ({names})")

    # What is run

    def _model_server(self, server: Endpoint) -> ProcessSpec:
        slots = self._options.slots or _DEFAULT_SLOTS
        command = [
            *(sys.executable, "-m", "epp", "modelserver", "--name", server.name),
            *("--host", server.address, "--port", str(server.port), "--max-num-seqs", str(slots)),
        ]
        return ProcessSpec(
            name=server.name,
            command=command,
            ready=http_ready(server.address, server.port, "/health"),
            environment=_ENVIRONMENT,
        )

    def _epp(self, plan: _Plan) -> ProcessSpec:
        options = self._options
        command = [sys.executable, "-m", "epp", "serve", "--host", _HOST]
        for directory in plan.directories:
            command += ["--manifests", str(directory)]
        for flag, value in (
            ("--grpc-port", options.grpc_port),
            ("--health-port", options.health_port),
            ("--metrics-port", options.metrics_port),
            ("--eds-file", self._state.eds_file),
            ("--pool-name", options.pool_name),
            ("--pool-namespace", options.pool_namespace),
            ("--config-file", options.config_file),
            ("--max-concurrency", self._max_concurrency(plan)),
            # When it is stopped, Envoy is gone already: nobody is left to be waited for.
            ("--drain-timeout", 0),
            ("--shutdown-grace", 1),
        ):
            if value is not None:
                command += [flag, str(value)]
        return ProcessSpec(
            name="epp",
            command=command,
            ready=all_ready(
                http_ready(_HOST, options.metrics_port, "/readyz"),
                tcp_ready(_HOST, options.grpc_port),
            ),
            environment=_ENVIRONMENT,
        )

    def _max_concurrency(self, plan: _Plan) -> int | None:
        if self._options.names_detector:
            return None  # the option would win over it
        return self._options.slots or (_DEFAULT_SLOTS if plan.simulated else None)

    def _envoy(self, plan: _Plan) -> ProcessSpec:
        # Here, because it takes most of a second, in which the user shall know what is going on.
        from epp.gateway.bootstrap import bootstrap, to_yaml

        options = self._options
        gateway_options = GatewayOptions(
            eds_path=str(self._state.eds_file),
            listen_address=_HOST,
            listen_port=options.port,
            ext_proc_address=_HOST,
            ext_proc_port=options.grpc_port,
            admin_port=options.admin_port,
            fail_open=plan.resources.pool.failure_mode == "FailOpen",
            response_body_mode=options.response_body_mode,
        )
        config = self._state.write_bootstrap(to_yaml(bootstrap(gateway_options)))
        return ProcessSpec(
            name="envoy",
            command=envoy_command(options.envoy, config, options.envoy_concurrency),
            ready=http_ready(_HOST, options.admin_port, "/ready"),
        )

    def _running(self, plan: _Plan) -> RunningGateway:
        options = self._options
        servers = plan.simulated or plan.resources.endpoints
        return RunningGateway(
            url=f"http://{_HOST}:{options.port}",
            metrics_url=f"http://{_HOST}:{options.metrics_port}/metrics",
            ext_proc_address=f"{_HOST}:{options.grpc_port}",
            health_address=f"{_HOST}:{options.health_port}",
            envoy_admin_url=f"http://{_HOST}:{options.admin_port}",
            state_dir=str(self._state.path),
            manifests=tuple(str(directory) for directory in plan.directories),
            servers=tuple(server.destination for server in servers),
            simulated=bool(plan.simulated),
            pids={process.name: process.pid for process in self._supervisor.processes},
        )
