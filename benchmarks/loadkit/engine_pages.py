"""Metrics pages as engines write them, one after the other, and a server that has them.

Run as a process of its own, ``python -m loadkit.engine_pages PORT...``: on each port it answers
every request with the next page of an idle vLLM.
"""

import asyncio
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import cycle
from typing import Final, cast

import uvloop

__all__ = ["ENGINES", "main", "pages"]

_MODEL: Final = "meta-llama/Llama-3.1-8B-Instruct"
_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
_PAGES: Final = 64
_BACKLOG: Final = 1_024


class _Writer:
    """Writes one page; ``turn`` is its number, by which counters have grown."""

    def __init__(self, turn: int, rng: random.Random, common: Mapping[str, str]) -> None:
        self._lines: list[str] = []
        self._turn = turn
        self._rng = rng
        self._common = common

    def sample(self, name: str, value: float | str, **labels: str) -> None:
        pairs = ",".join(f'{key}="{text}"' for key, text in {**self._common, **labels}.items())
        self._lines.append(f"{name}{{{pairs}}} {value}" if pairs else f"{name} {value}")

    def gauge(self, name: str, value: float | str, **labels: str) -> None:
        self._lines += [f"# HELP {name} What {name} is.", f"# TYPE {name} gauge"]
        self.sample(name, value, **labels)

    def counters(self, names: Iterable[str]) -> None:
        for name in names:
            self._lines += [f"# HELP {name}_total All {name}.", f"# TYPE {name}_total counter"]
            self.sample(f"{name}_total", float(10_000_000 + self._turn * self._rng.randrange(999)))

    def histograms(self, names: Iterable[str]) -> None:
        for name in names:
            self._lines += [f"# HELP {name} Histogram of it.", f"# TYPE {name} histogram"]
            count = 0
            for bound in (*map(str, _BUCKETS), "+Inf"):
                count += 1_000 + self._turn % 7
                self.sample(f"{name}_bucket", float(count), le=bound)
            self.sample(f"{name}_count", float(count))
            self.sample(f"{name}_sum", 123.0 * self._turn + self._rng.random())

    def written(self) -> bytes:
        return "".join(f"{line}\n" for line in self._lines).encode()


def _process(turn: int, rng: random.Random) -> bytes:
    process = _Writer(turn, rng, {})
    process.gauge("process_resident_memory_bytes", 8.9e9 + 4096 * rng.randrange(1000))
    process.gauge("process_start_time_seconds", 1763782765.43)
    process.gauge("process_cpu_seconds_total", 1234.5 + turn)
    return process.written()


def _vllm(turn: int, rng: random.Random) -> bytes:
    return _process(turn, rng) + _vllm_itself(turn, rng, is_idle=False)


def _vllm_itself(turn: int, rng: random.Random, *, is_idle: bool) -> bytes:
    engine = _Writer(turn, rng, {"engine": "0", "model_name": _MODEL})
    engine.gauge("vllm:num_requests_running", 0.0 if is_idle else float(rng.randrange(100)))
    engine.gauge("vllm:num_requests_waiting", 0.0 if is_idle else float(rng.randrange(10)))
    engine.gauge("vllm:kv_cache_usage_perc", 0.0 if is_idle else rng.random())
    for reason in ("capacity", "deferred"):
        engine.gauge("vllm:num_requests_waiting_by_reason", 0.0, reason=reason)
    engine.counters(("vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:prompt_tokens"))
    engine.histograms(f"vllm:request_phase_number_{number}_seconds" for number in range(26))
    info = _Writer(turn, rng, {})
    options = {f"option_{number}": "None" for number in range(10)}
    info.gauge("vllm:cache_config_info", 1.0, block_size="16", num_gpu_blocks="27913", **options)
    info.counters(f"http_requests_of_kind_{number}" for number in range(10))
    return engine.written() + info.written()


def _sglang(turn: int, rng: random.Random) -> bytes:
    page = _Writer(turn, rng, {"engine_type": "unified", "model_name": _MODEL, "tp_rank": "0"})
    page.gauge("sglang:num_running_reqs", float(rng.randrange(100)))
    page.gauge("sglang:num_used_tokens", float(rng.randrange(100_000)))
    page.gauge("sglang:token_usage", rng.random())
    page.gauge("sglang:num_queue_reqs", float(rng.randrange(10)))
    page.gauge("sglang:cache_config_info", 1.0, num_pages="11147", page_size="64")
    page.counters(("sglang:prompt_tokens", "sglang:generation_tokens"))
    page.histograms(f"sglang:phase_number_{number}_seconds" for number in range(12))
    return page.written()


def _trtllm(turn: int, rng: random.Random) -> bytes:
    page = _Writer(turn, rng, {"engine_type": "trtllm", "model_name": _MODEL})
    page.gauge("trtllm_kv_cache_utilization", rng.random())
    page.gauge("trtllm_num_requests_running", float(rng.randrange(100)))
    page.gauge("trtllm_num_requests_waiting", float(rng.randrange(10)))
    page.gauge("trtllm_kv_cache_max_blocks", 10240.0)
    page.gauge("trtllm_kv_cache_tokens_per_block", 32.0)
    page.histograms(f"trtllm_phase_number_{number}_seconds" for number in range(8))
    return page.written()


def _triton(turn: int, rng: random.Random) -> bytes:
    page = _Writer(turn, rng, {"model": "tensorrt_llm", "version": "1"})
    for number in range(12):
        page.gauge(f"nv_inference_count_of_kind_{number}", turn * rng.randrange(999))
    page.gauge("nv_inference_pending_request_count", rng.randrange(10))
    for kind in ("waiting", "context", "scheduled", "max", "active"):
        page.sample("nv_trt_llm_request_metrics", rng.randrange(10), request_type=kind)
    for kind in ("fraction", "tokens_per", "used", "free", "max"):
        value = rng.random() if kind == "fraction" else 64
        page.sample("nv_trt_llm_kv_cache_block_metrics", value, kv_cache_block_type=kind)
    return page.written()


def _llamacpp(turn: int, rng: random.Random) -> bytes:
    page = _Writer(turn, rng, {})
    page.counters(("llamacpp:prompt_tokens", "llamacpp:tokens_predicted"))
    page.gauge("llamacpp:requests_processing", rng.randrange(8))
    page.gauge("llamacpp:requests_deferred", rng.randrange(8))
    return page.written()


ENGINES: Final = {
    "vllm": _vllm,
    "sglang": _sglang,
    "trtllm-serve": _trtllm,
    "triton-tensorrt-llm": _triton,
    "llamacpp": _llamacpp,
}


def pages(engine: str, count: int) -> list[bytes]:
    """Return so many pages of an engine under load, about a second apart."""
    rng = random.Random(1)
    return [ENGINES[engine](turn, rng) for turn in range(1, count + 1)]


class _Connection(asyncio.Protocol):
    def __init__(self, answers: Iterator[bytes]) -> None:
        self._answers = answers
        self._received = b""
        self._transport = cast("asyncio.Transport", None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"\r\n\r\n"):  # a client that waits for its answer
            self._received = b""
            self._transport.write(next(self._answers))


def _answers() -> list[bytes]:
    """Return pages of an engine that does nothing, with their heads: hardly a number changes."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: "
    rng = random.Random(1)
    itself = _vllm_itself(1, rng, is_idle=True)
    idle = [_process(turn, rng) + itself for turn in range(1, _PAGES + 1)]
    return [b"%b%d\r\n\r\n%b" % (head, len(page), page) for page in idle]


async def _serve(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    answers = cycle(_answers())
    for port in ports:
        await loop.create_server(lambda: _Connection(answers), "127.0.0.1", port, backlog=_BACKLOG)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    uvloop.run(_serve([int(argument) for argument in sys.argv[1:]]))


if __name__ == "__main__":
    main()
