"""``epp modelserver``: a model server without a model, to try the endpoint picker with."""

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epp.modelserver.options import ModelServerOptions

__all__ = ["add_parser"]

_DESCRIPTION = """\
Serve the OpenAI API (completions and chat, JSON and streamed) and vLLM's metrics without a GPU.
Requests share an engine that batches, queues, caches prefixes and preempts as a real one does; only
the text is made up, and the same request always gets the same text.
"""
_EPILOG = """\
For tests: GET /debug/state shows what was received and what is running, POST /debug/echo returns
its body, and the header x-modelserver-fault (or POST /debug/faults, with "times") makes requests
fail, for example {"status": 500}, {"delay_s": 2}, {"hang": true} or {"reset_after_tokens": 3}.
"""


def _count(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return an argparse type for whole numbers between two bounds."""

    def parse(text: str) -> int:
        value = int(text) if text.isascii() and text.isdecimal() else -1
        if value < minimum or (maximum is not None and value > maximum):
            upper = "" if maximum is None else f" and at most {maximum}"
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {minimum}{upper}, got {text!r}"
            )
        return value

    return parse


def _duration_s(text: str) -> float:
    value = _finite(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"expected seconds, at least 0, got {text!r}")
    return value


def _rate(text: str) -> float:
    value = _finite(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def _finite(text: str) -> float:
    """Return the number in ``text``, NaN if there is no finite one."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


# Name, type, default, what it is. The options' own defaults are the same; a test compares them, so
# that starting the command line does not have to import them.
_ENGINE_FLAGS = (
    ("max-num-seqs", _count(1), 32, "requests that run at once"),
    ("num-kv-blocks", _count(1), 4096, "blocks of the KV cache"),
    ("block-size", _count(1), 16, "tokens per block"),
    ("max-num-batched-tokens", _count(1), 2048, "tokens per iteration; long prompts take several"),
    ("max-model-len", _count(2), None, "tokens per request; None is all that the KV cache holds"),
    ("max-loras", _count(0), 4, "adapters that run at once; requests for others wait"),
)
_LATENCY_FLAGS = (
    ("prefill-tokens-per-s", _rate, 8000.0, "prompt tokens computed per second"),
    ("decode-step-s", _duration_s, 0.02, "seconds per iteration, whatever is in it"),
    ("decode-step-per-seq-s", _duration_s, 0.0003, "seconds more for each decoding request"),
    ("lora-load-s", _duration_s, 0.1, "seconds to load an adapter"),
    ("time-scale", _rate, 1.0, "run so many times as fast"),
)


def add_parser(subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the ``modelserver`` command."""
    parser = subcommands.add_parser(
        "modelserver",
        help="run a simulated model server (OpenAI API, vLLM metrics, no GPU)",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_server_flags(parser.add_argument_group("server"))
    engine = parser.add_argument_group("engine")
    for name, parse, default, text in _ENGINE_FLAGS:
        engine.add_argument(f"--{name}", type=parse, default=default, metavar="N", help=text)
    engine.add_argument(
        "--no-prefix-caching", action="store_true", help="compute every prompt from its start"
    )
    latency = parser.add_argument_group("latency")
    for name, parse_number, rate, text in _LATENCY_FLAGS:
        latency.add_argument(f"--{name}", type=parse_number, default=rate, metavar="X", help=text)
    parser.set_defaults(run=_run)


def _add_server_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--name", default="modelserver", help="what every response says in x-served-by"
    )
    group.add_argument("--host", default="127.0.0.1", help="address to listen on")
    group.add_argument("--port", type=_count(0, 65535), default=8000, help="0 takes any free port")
    group.add_argument(
        "--model",
        action="append",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help="a model to serve, may be repeated (default: whatever name a request has)",
    )
    group.add_argument(
        "--lora",
        action="append",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help="an adapter to serve, may be repeated (default: none)",
    )
    group.add_argument(
        "--default-max-tokens",
        type=_count(1),
        default=64,
        metavar="N",
        help="length of an answer where the request names none",
    )
    group.add_argument(
        "--headers-with-first-token",
        action="store_true",
        help="send the headers of a stream with its first token; vLLM sends them at once",
    )


def _options(args: argparse.Namespace) -> "ModelServerOptions":
    from epp.modelserver.engine import EngineOptions
    from epp.modelserver.latency import LatencyModel
    from epp.modelserver.options import ModelServerOptions

    def chosen(flags: tuple[tuple[str, object, object, str], ...]) -> dict[str, object]:
        names = (name.replace("-", "_") for name, *_ in flags)
        return {name: getattr(args, name) for name in names}

    latency = LatencyModel(**chosen(_LATENCY_FLAGS))  # type: ignore[arg-type]
    engine = EngineOptions(
        **chosen(_ENGINE_FLAGS),  # type: ignore[arg-type]
        prefix_caching=not args.no_prefix_caching,
        latency=latency,
    )
    return ModelServerOptions(
        name=args.name,
        host=args.host,
        port=args.port,
        models=tuple(getattr(args, "model", ())),
        loras=tuple(getattr(args, "lora", ())),
        default_max_tokens=args.default_max_tokens,
        headers_with_first_token=args.headers_with_first_token,
        engine=engine,
    )


def _run(args: argparse.Namespace) -> int:
    import asyncio

    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    try:
        import uvloop
    except ImportError:
        pass  # there is none for the platform; asyncio's own loop serves too
    else:
        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_serve(_options(args)))
    return 0


async def _serve(options: "ModelServerOptions") -> None:
    """Serve until SIGTERM or SIGINT."""
    import asyncio
    import signal

    from epp.modelserver.server import ModelServer

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ModelServer(options) as server:
        print(f"epp modelserver {options.name} ready on {server.url}", flush=True)
        await stop.wait()
