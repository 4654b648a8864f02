"""One measurement: rounds of a run without the filter and a run with it, one after the other."""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from loadkit.client import Load, Task
from loadkit.figures import Counters, Result, Round, Sample, sample, summary
from loadkit.scenarios import ANSWERS, Scenario
from loadkit.stack import Gateway, cpu_s

__all__ = ["Amount", "LoadFailedError", "load_on", "measure", "run_once", "warm_up"]

_WARM_UP_S: Final = 0.3
_STATS_TIMEOUT_S: Final = 10.0


class LoadFailedError(Exception):
    """Requests had wrong answers or none: there are no figures."""


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: ``requests`` in each run, or for ``duration_s`` if that is None."""

    rounds: int
    duration_s: float
    requests: int | None

    async def run(self, load: Load) -> None:
        """Do one run."""
        duration_s = self.duration_s if self.requests is None else None
        await load.run(duration_s=duration_s, requests=self.requests)


async def measure(
    scenario: Scenario,
    clients: int,
    off: Gateway,
    on: Gateway,
    amount: Amount,
    progress: Callable[[str], None],
) -> Result:
    """Measure a scenario with so many clients. Raises LoadFailedError."""
    rounds: list[Round] = []
    async with (
        load_on(off, scenario, clients) as load_off,
        load_on(on, scenario, clients) as load_with,
    ):
        for load in (load_off, load_with):
            await warm_up(load, scenario, amount)
        for number in range(amount.rounds):
            result = Round(
                off=await run_once(load_off, off, scenario, amount),
                on=await run_once(load_with, on, scenario, amount),
            )
            rounds.append(result)
            progress(_line(scenario, clients, number, amount.rounds, result))
    return Result(
        scenario=scenario.name,
        text=scenario.text,
        clients=clients,
        summary=summary(rounds),
        rounds=tuple(rounds),
    )


def load_on(gateway: Gateway, scenario: Scenario, clients: int) -> Load:
    """Return the clients of a scenario, to be used as a context manager."""
    task = Task(
        port=gateway.port,
        request=scenario.request(),
        body=ANSWERS[scenario.answer].body,
        is_picked=gateway.epp_pid is not None,
    )
    return Load(task, clients)


async def warm_up(load: Load, scenario: Scenario, amount: Amount) -> None:
    """Do a short run whose figures do not count. Raises LoadFailedError."""
    if amount.requests is None:
        await load.run(duration_s=min(_WARM_UP_S, amount.duration_s))
    else:
        await load.run(requests=load.clients)
    _check(load, scenario)


async def run_once(load: Load, gateway: Gateway, scenario: Scenario, amount: Amount) -> Sample:
    """Do one run and return its figures. Raises LoadFailedError."""
    before = await _counters(gateway)
    await amount.run(load)
    after = await _counters(gateway)
    _check(load, scenario)
    return sample(load.window, before, after)


def _check(load: Load, scenario: Scenario) -> None:
    window = load.window
    if window.failed or not window.latencies_s:
        reasons = "; ".join(window.failures) or "nothing was answered"
        raise LoadFailedError(f"{scenario.name}: {window.failed} requests failed: {reasons}")


async def _counters(gateway: Gateway) -> Counters:
    messages = 0
    if gateway.epp_pid is not None:
        messages = await _messages_sent(gateway.admin_port)
    return Counters(
        epp_cpu_s=cpu_s(gateway.epp_pid) if gateway.epp_pid is not None else 0.0,
        envoy_cpu_s=cpu_s(gateway.envoy_pid),
        messages=messages,
    )


async def _messages_sent(admin_port: int) -> int:
    """Return how many messages Envoy's ext_proc filter has sent so far."""
    async with asyncio.timeout(_STATS_TIMEOUT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", admin_port)
        writer.write(
            b"GET /stats?filter=ext_proc\\.stream_msgs_sent$ HTTP/1.1\r\n"
            b"host: admin\r\nconnection: close\r\n\r\n"
        )
        answer = await reader.read()
        writer.close()
    for line in answer.splitlines():
        name, _, value = line.partition(b": ")
        if name.endswith(b"ext_proc.stream_msgs_sent"):
            return int(value)
    raise LoadFailedError("Envoy's statistics do not have stream_msgs_sent of ext_proc")


def _line(scenario: Scenario, clients: int, number: int, rounds: int, result: Round) -> str:
    off, on = result.off, result.on
    return (
        f"{scenario.name}, clients {clients}, round {number + 1} of {rounds}:"
        f" {off.requests_per_s:.0f} requests/s without the EPP, {on.requests_per_s:.0f} with it,"
        f" p50 {off.latency_p50_ms:.2f} and {on.latency_p50_ms:.2f} ms,"
        f" EPP CPU {on.epp_cpu_us:.0f} us per request"
    )
