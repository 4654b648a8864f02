import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from epp.discovery.resolve import Resolver, system_lookup


class FakeDns:
    """Answers from a table; where an event stands there, what stands there after it was set."""

    def __init__(self, **answers: Sequence[str] | Exception | asyncio.Event) -> None:
        self.answers: dict[str, Sequence[str] | Exception | asyncio.Event] = {**answers}
        self.asked: list[str] = []
        self.under_way = 0
        self.most_under_way = 0

    async def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            answer = self.answers[name]
            if isinstance(answer, asyncio.Event):
                await answer.wait()
                answer = self.answers[name]
            await asyncio.sleep(0)
            if isinstance(answer, Exception):
                raise answer
            assert not isinstance(answer, asyncio.Event)
            return answer
        finally:
            self.under_way -= 1


NO_SUCH_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["10.0.0.10", "10.0.0.9", "10.0.0.9"], ("10.0.0.9", "10.0.0.10")),
        (["2001:DB8::2", "2001:db8::1"], ("2001:db8::1", "2001:db8::2")),
        (["::1", "127.0.0.1"], ("127.0.0.1",)),
        (["::ffff:10.0.0.1", "2001:db8::1"], ("10.0.0.1",)),
        (["fe80::1%eth0", "0.0.0.0", "nonsense", "10.0.0.1"], ("10.0.0.1",)),
    ],
)
async def test_addresses_that_are_used(found: list[str], expected: tuple[str, ...]) -> None:
    resolver = Resolver(lookup=FakeDns(a=found))
    assert await resolver.refresh({"a"})
    assert resolver.addresses == {"a": expected}
    assert not await resolver.refresh({"a"})


async def test_a_failed_lookup_keeps_the_last_addresses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    failures: list[str] = []
    dns = FakeDns(a=["10.0.0.1"], b=NO_SUCH_NAME)
    resolver = Resolver(lookup=dns, on_failure=failures.append)
    await resolver.refresh({"a", "b"})
    dns.answers["a"] = NO_SUCH_NAME
    for _ in range(3):
        assert not await resolver.refresh({"a", "b"})
    assert resolver.addresses == {"a": ("10.0.0.1",)}
    dns.answers |= {"a": [], "b": ["10.0.0.2"]}
    assert await resolver.refresh({"a", "b"})
    dns.answers["a"] = ["10.0.0.1"]
    assert not await resolver.refresh({"a", "b"})
    assert failures == ["b", "a", "b", "a", "b", "a", "b", "a"]
    reason = "[Errno -2] Name or service not known"
    assert [record.getMessage() for record in caplog.records] == [
        "name resolved: a: 10.0.0.1",
        f"name not resolved: b: {reason}; addresses kept: none",
        f"name not resolved: a: {reason}; addresses kept: 10.0.0.1",
        "name not resolved: a: the answer has no address that can be used; "
        "addresses kept: 10.0.0.1",
        "name resolved: b: 10.0.0.2",
        "name resolved: a: 10.0.0.1",
    ]


@pytest.mark.parametrize("error", [NO_SUCH_NAME, UnicodeError("label too long"), RuntimeError()])
async def test_no_failure_is_fatal(error: Exception) -> None:
    failures: list[str] = []
    resolver = Resolver(lookup=FakeDns(a=error, b=["10.0.0.1"]), on_failure=failures.append)
    await resolver.refresh({"a", "b"})
    assert resolver.addresses == {"b": ("10.0.0.1",)}
    assert failures == ["a"]


async def test_only_new_names_are_looked_up_when_asked_so() -> None:
    dns = FakeDns(a=["10.0.0.1"], b=NO_SUCH_NAME, c=["10.0.0.3"])
    resolver = Resolver(lookup=dns)
    await resolver.refresh({"a", "b"})
    await resolver.refresh({"a", "b", "c"}, only_new=True)
    assert dns.asked == ["a", "b", "c"]
    await resolver.refresh({"a", "b", "c"})
    assert dns.asked == ["a", "b", "c", "a", "b", "c"]


async def test_names_that_are_gone_are_forgotten() -> None:
    dns = FakeDns(a=["10.0.0.1"], b=NO_SUCH_NAME)
    resolver = Resolver(lookup=dns)
    await resolver.refresh({"a", "b"})
    assert await resolver.refresh(set())
    assert resolver.addresses == {}
    await resolver.refresh({"a", "b"}, only_new=True)
    assert dns.asked == ["a", "b", "a", "b"]


async def test_a_late_answer_is_collected_later(caplog: pytest.LogCaptureFixture) -> None:
    event = asyncio.Event()
    dns = FakeDns(a=event, b=["10.0.0.2"])
    resolver = Resolver(lookup=dns, timeout_s=0.01)
    await resolver.refresh({"a", "b"})
    assert resolver.addresses == {"b": ("10.0.0.2",)}
    assert caplog.messages == [
        "name not resolved: a: no answer within 0.01 s; addresses kept: none"
    ]
    dns.answers["a"] = ["10.9.9.9"]
    event.set()
    await resolver.refresh({"a", "b"})
    assert resolver.addresses == {"a": ("10.9.9.9",), "b": ("10.0.0.2",)}
    assert dns.asked == ["a", "b", "b"]


async def test_lookups_under_way_are_bounded() -> None:
    names = [f"n{index}" for index in range(20)]
    dns = FakeDns(**{name: ["10.0.0.1"] for name in names})
    await Resolver(lookup=dns, concurrency=3).refresh(set(names))
    assert dns.most_under_way == 3
    assert len(dns.asked) == 20


async def test_lookups_that_nobody_waits_for_count_too() -> None:
    event = asyncio.Event()
    dns = FakeDns(a=event, b=event, c=["10.0.0.3"])
    resolver = Resolver(lookup=dns, timeout_s=0.01, concurrency=2)
    await resolver.refresh({"a", "b"})
    await resolver.refresh({"c"})
    assert dns.asked == ["a", "b"]
    dns.answers |= {"a": NO_SUCH_NAME, "b": NO_SUCH_NAME}
    event.set()
    await resolver.refresh({"c"})
    await resolver.refresh({"c"})
    assert resolver.addresses == {"c": ("10.0.0.3",)}


async def test_closing_gives_up_what_is_under_way() -> None:
    dns = FakeDns(a=asyncio.Event(), b=NO_SUCH_NAME)
    resolver = Resolver(lookup=dns, timeout_s=0.01)
    await resolver.refresh({"a", "b"})
    assert dns.under_way == 1
    resolver.close()
    await asyncio.sleep(0)
    assert dns.under_way == 0


async def test_the_systems_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(host: str, port: None, **options: Any) -> list[tuple[Any, ...]]:
        assert (host, port, options) == ("a.example", None, {"type": socket.SOCK_STREAM})
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0)),
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    assert await system_lookup("a.example") == ["2001:db8::1", "10.0.0.1"]


async def test_localhost_is_found_by_the_real_resolver() -> None:
    assert await system_lookup("localhost")
