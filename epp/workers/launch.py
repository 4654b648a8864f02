"""``epp serve --workers N``: what is set up once, before the processes start."""

import logging
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, Final

import msgspec

from epp.config import ServeOptions
from epp.core.resources import join_host_port
from epp.errors import UsageError
from epp.proxy.transports import make_tls
from epp.workers.hub_server import CoreSeat
from epp.workers.link import listen
from epp.workers.supervisor import ChildSpec, Supervisor
from epp.workers.worker import Worker, WorkerSeat

__all__ = ["CoreSeat", "launch"]

logger = logging.getLogger(__name__)

_GOODBYE_S: Final = 10.0

CoreMain = Callable[[ServeOptions, CoreSeat, Callable[[], None]], Coroutine[Any, Any, None]]


def launch(
    options: ServeOptions,
    core_main: CoreMain,
    run: Callable[[str, Coroutine[Any, Any, None]], None],
) -> int:
    """Serve with a core process and ``options.workers`` workers; return the exit code.

    ``core_main`` is what the core does, ``run`` runs a coroutine under the name of its process.
    Raises UsageError for what can be seen to be wrong before any process is started.
    """
    if sys.platform != "linux":
        raise UsageError(f"--workers {options.workers}: needs Linux; expected 1 here")
    tls = make_tls(options)
    if tls is not None:
        tls.load()
    with _reserve(options.host, options.grpc_port) as port, listen(4 * options.workers) as listener:
        options = _with_ports(options, port.getsockname()[1])

        def core(restarts: int, tell_ready: Callable[[], None]) -> int:
            seat = CoreSeat(listener=listener, restarts=restarts)
            run("core", core_main(_fresh(options, restarts), seat, tell_ready))
            return 0

        def worker(number: int) -> Callable[[int, Callable[[], None]], int]:
            def main(restarts: int, tell_ready: Callable[[], None]) -> int:
                address = listener.getsockname()
                listener.close()
                seat = WorkerSeat(number=number, restarts=restarts, core_address=address)
                run(f"worker-{number}", _work(_fresh(options, restarts), seat, tell_ready))
                return 0

            return main

        numbers = range(options.workers)
        workers = (ChildSpec(name=f"worker-{n}", main=worker(n)) for n in numbers)
        specs = [ChildSpec(name="core", main=core), *workers]
        stop_timeout_s = options.drain_timeout_s + options.shutdown_grace_s + _GOODBYE_S
        return Supervisor(specs, stop_timeout_s=stop_timeout_s).run()


def _fresh(options: ServeOptions, restarts: int) -> ServeOptions:
    """Return the options of a process that is restarted: its configuration may have changed since
    those of the parent were read. One that is no good is not taken."""
    if not restarts:
        return options
    try:
        return options.renewed()
    except UsageError as error:
        logger.warning("configuration rejected, the one of the start is used: %s", error)
        return options


def _with_ports(options: ServeOptions, grpc_port: int) -> ServeOptions:
    """Return the options with ports that stay the same when the core is restarted."""
    with ExitStack() as stack:
        health_port, metrics_port = (
            port or stack.enter_context(_bound(options.host, 0)).getsockname()[1]
            for port in (options.health_port, options.metrics_port)
        )
    return msgspec.structs.replace(
        options, grpc_port=grpc_port, health_port=health_port, metrics_port=metrics_port
    )


async def _work(options: ServeOptions, seat: WorkerSeat, tell_ready: Callable[[], None]) -> None:
    await Worker(options, seat, tell_ready).run()


def _reserve(host: str, port: int) -> socket.socket:
    """Return a socket that has the address, for workers to share: it does not listen itself.

    Bound first without leave to share, it finds out whether anybody listens there, also somebody
    who would share.
    """
    reserved = _bound(host, port)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return reserved


def _bound(host: str, port: int) -> socket.socket:
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            bound = stack.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError as error:
            raise UsageError(
                f"cannot listen on {join_host_port(host, port)} for ext_proc (--grpc-port):"
                f" {error.strerror or error}"
            ) from error
        stack.pop_all()
    return bound
