"""Measure what it costs to know the load of the engines: reading a page, fetching it, and a pool of
engines that do nothing. README.md beside this file says how.
"""

import argparse
import asyncio
import re
import sys
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Final

import aiohttp
import msgspec
from loadkit.command import positive, progress, run, watched
from loadkit.engine_pages import ENGINES, pages
from loadkit.figures import Spread, spread
from loadkit.report import cell, table
from loadkit.stack import cpu_s, pool_manifest

from epp.config.scrape import ScrapeOptions
from epp.engines.fetch import PageClient
from epp.engines.parse import Dialects, PageReader
from epp.gateway.ports import free_ports
from epp.gateway.probes import http_ready, tcp_ready
from epp.gateway.processes import ProcessSpec, Supervisor

_PAGES: Final = 128
_AT_A_TIME: Final = 32
_SCRAPES: Final = 640
_SETTLE_S: Final = 2.0
_PORTS_OF_EPP: Final = 3
_COUNTS: Final = re.compile(rb'llm_d_epp_engine_scrapes_total\{result="ok"\} ([0-9.e+]+)')


class PageCost(msgspec.Struct, frozen=True, kw_only=True):
    """What reading one page takes, in microseconds: ``next_us`` a page of an engine of which there
    were others before, on average; ``whole_us`` a page that is searched as a whole; ``first_us``
    one of an engine of which not even the kind is known."""

    engine: str
    page_bytes: int
    next_us: Spread
    whole_us: Spread
    first_us: Spread


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``fetch_us`` and ``scrape_us`` are CPU time of one page of vLLM: fetched, and
    fetched and read. ``idle_share`` and ``idle_share_without`` are of one core: ``epp serve`` with
    nothing to do, with and without scraping so many ``endpoints``, ``scrapes_per_s`` times a
    second."""

    pages: tuple[PageCost, ...]
    fetch_us: Spread
    scrape_us: Spread
    endpoints: int
    idle_share: float
    idle_share_without: float
    scrapes_per_s: float


def main() -> int:
    """Run the benchmark and return the exit code: 1 if something failed, 2 for a wrong usage."""
    parser = argparse.ArgumentParser(
        description="Measure what scraping costs. Takes about 40 s.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rounds", type=positive, default=7, metavar="N", help="rounds of each")
    parser.add_argument(
        "--endpoints", type=positive, default=100, metavar="N", help="engines that are idle"
    )
    parser.add_argument(
        "--seconds", type=positive, default=20, metavar="N", help="how long they are watched"
    )
    parser.add_argument("--json", action="store_true", help="print every figure, as JSON")
    arguments = parser.parse_args()
    return run("scrape.py", _measure(arguments), _render, as_json=arguments.json)


async def _measure(arguments: argparse.Namespace) -> Document:
    costs = []
    for engine in ENGINES:
        progress(f"reading pages of {engine}")
        costs.append(_page_cost(engine, arguments.rounds))
    with TemporaryDirectory(prefix="epp-benchmark-") as path:
        async with Supervisor(Path(path)) as supervisor:
            ports = free_ports(arguments.endpoints + 2 * _PORTS_OF_EPP)
            server_ports = ports[: arguments.endpoints]
            await supervisor.start([_server(server_ports)])
            progress("fetching")
            fetch_us, scrape_us = await _fetch_cost(server_ports, arguments.rounds)
            progress(f"epp serve with {arguments.endpoints} idle engines")
            return await watched(
                supervisor,
                _idle_cost(
                    supervisor,
                    Path(path),
                    ports,
                    arguments,
                    Document(
                        pages=tuple(costs),
                        fetch_us=fetch_us,
                        scrape_us=scrape_us,
                        endpoints=arguments.endpoints,
                        idle_share=0.0,
                        idle_share_without=0.0,
                        scrapes_per_s=0.0,
                    ),
                ),
            )


# ---- reading ----


def _page_cost(engine: str, rounds: int) -> PageCost:
    dialects = Dialects()
    written = pages(engine, _PAGES)

    def following() -> None:
        reader = PageReader(dialects)
        for page in written:
            reader.read(page)

    def whole() -> None:
        for page in written:
            PageReader(dialects).read(page, engine)

    def first() -> None:
        for page in written:
            PageReader(dialects).read(page)

    return PageCost(
        engine=engine,
        page_bytes=sum(map(len, written)) // len(written),
        next_us=_per_page_us(following, rounds),
        whole_us=_per_page_us(whole, rounds),
        first_us=_per_page_us(first, rounds),
    )


def _per_page_us(work: Callable[[], None], rounds: int) -> Spread:
    work()  # the first time does not count
    taken = []
    for _ in range(rounds):
        began_s = process_time()
        work()
        taken.append((process_time() - began_s) / _PAGES * 1e6)
    return spread(taken)


# ---- fetching ----


async def _fetch_cost(ports: Sequence[int], rounds: int) -> tuple[Spread, Spread]:
    destinations = list(islice(cycle(f"127.0.0.1:{port}" for port in ports), _AT_A_TIME))
    dialects = Dialects()
    readers = [PageReader(dialects) for _ in destinations]
    client = PageClient(ScrapeOptions(deadline_s=20.0))

    async def fetch(number: int) -> None:
        await client.fetch(destinations[number])

    async def scrape(number: int) -> None:
        load = readers[number].read(await client.fetch(destinations[number]))
        assert load is not None

    taken: tuple[list[float], list[float]] = ([], [])
    try:
        for turn in range(rounds + 1):
            for work, times in zip((fetch, scrape), taken, strict=True):
                began_s = process_time()
                for _ in range(_SCRAPES // _AT_A_TIME):
                    await asyncio.gather(*map(work, range(_AT_A_TIME)))
                if turn:  # the first time does not count: connections are opened
                    times.append((process_time() - began_s) / _SCRAPES * 1e6)
    finally:
        await client.close()
    return spread(taken[0]), spread(taken[1])


def _server(ports: Sequence[int]) -> ProcessSpec:
    return ProcessSpec(
        name="engines",
        command=[sys.executable, "-m", "loadkit.engine_pages", *map(str, ports)],
        ready=tcp_ready("127.0.0.1", ports[-1]),
        environment={"PYTHONPATH": str(Path(__file__).parent)},
    )


# ---- doing nothing ----


async def _idle_cost(
    supervisor: Supervisor,
    directory: Path,
    ports: Sequence[int],
    arguments: argparse.Namespace,
    document: Document,
) -> Document:
    manifests = directory / "manifests"
    manifests.mkdir()
    (manifests / "pool.yaml").write_text(pool_manifest(list(ports[: arguments.endpoints])))
    own_ports = ports[arguments.endpoints :]
    with_it = _epp("with", manifests, own_ports[:_PORTS_OF_EPP], "--scrape")
    without = _epp("without", manifests, own_ports[_PORTS_OF_EPP:], "--no-scrape")
    await supervisor.start([with_it, without])
    pids = {process.name: process.pid for process in supervisor.processes}
    await asyncio.sleep(_SETTLE_S)
    metrics_port = own_ports[_PORTS_OF_EPP - 1]
    before = cpu_s(pids["with"]), cpu_s(pids["without"])
    scrapes = await _scrapes(metrics_port)
    began_s = perf_counter()
    await asyncio.sleep(arguments.seconds)
    after = cpu_s(pids["with"]), cpu_s(pids["without"])
    passed_s = perf_counter() - began_s
    return msgspec.structs.replace(
        document,
        idle_share=(after[0] - before[0]) / passed_s,
        idle_share_without=(after[1] - before[1]) / passed_s,
        scrapes_per_s=(await _scrapes(metrics_port) - scrapes) / passed_s,
    )


def _epp(name: str, manifests: Path, ports: Sequence[int], scraping: str) -> ProcessSpec:
    grpc_port, health_port, metrics_port = map(str, ports)
    return ProcessSpec(
        name=name,
        command=[
            *(sys.executable, "-m", "epp", "serve", "--manifests", str(manifests), scraping),
            *("--host", "127.0.0.1", "--grpc-port", grpc_port, "--log-level", "warning"),
            *("--health-port", health_port, "--metrics-port", metrics_port),
        ],
        ready=http_ready("127.0.0.1", int(metrics_port), "/readyz"),
    )


async def _scrapes(port: int) -> float:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as response,
    ):
        found = _COUNTS.search(await response.read())
    return float(found[1]) if found else 0.0


def _render(document: Document) -> str:
    head = ("engine", "page", "the next page, µs", "a whole page, µs", "the first page, µs")
    rows = [
        (
            cost.engine,
            f"{cost.page_bytes / 1000:.1f} KB",
            cell(cost.next_us, 1),
            cell(cost.whole_us, 1),
            cell(cost.first_us, 1),
        )
        for cost in document.pages
    ]
    vllm_kb = document.pages[0].page_bytes / 1000
    return "\n".join(
        [
            *table([head, *rows]),
            "",
            f"One page of vLLM ({vllm_kb:.0f} KB), CPU time: fetched {cell(document.fetch_us, 0)}"
            f" µs, fetched and read {cell(document.scrape_us, 0)} µs",
            f"epp serve with {document.endpoints} idle engines, {document.scrapes_per_s:.0f}"
            f" scrapes/s: {document.idle_share:.2%} of a core; without scraping"
            f" {document.idle_share_without:.2%}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
