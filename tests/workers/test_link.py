"""The socket between worker and core."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from epp.core.claims import RequestClaims
from epp.workers import link as link_module
from epp.workers.link import Link, listen
from epp.workers.messages import (
    Admit,
    Hello,
    Listening,
    Synced,
    WorkerMessage,
    encode_frame,
    from_worker,
)

from ..e2e.support import eventually


class End:
    """One end, and what it has heard, by read."""

    def __init__(self, on_messages: Callable[[list[Any]], None] = lambda messages: None) -> None:
        self.reads: list[list[Any]] = []
        self.was_lost = 0
        self._on_messages = on_messages
        self.link: Link[WorkerMessage] = Link(
            "somebody", from_worker(), on_messages=self._heard, on_lost=self._lost
        )

    @property
    def heard(self) -> list[Any]:
        return [message for messages in self.reads for message in messages]

    def _heard(self, messages: list[Any]) -> None:
        self.reads.append(messages)
        self._on_messages(messages)

    def _lost(self) -> None:
        self.was_lost += 1


@asynccontextmanager
async def connected(here: End, there: End) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    with listen(1) as listener:
        server = await loop.create_unix_server(lambda: there.link, sock=listener)
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        await loop.sock_connect(connection, listener.getsockname())
        await loop.create_unix_connection(lambda: here.link, sock=connection)
        await eventually(lambda: there.link._transport is not None or there.was_lost)
        try:
            yield
        finally:
            here.link.abort()
            there.link.abort()
            server.close()
            await eventually(lambda: here.was_lost == there.was_lost == 1)


async def test_what_is_said_in_one_turn_arrives_in_one_read() -> None:
    here, there = End(), End()
    async with connected(here, there):
        for message in (Hello(1, 0), Synced(), Listening()):
            here.link.send(message)
        await eventually(lambda: len(there.heard) == 3)
        assert there.reads == [[Hello(1, 0), Synced(), Listening()]]


async def test_what_has_come_in_one_read_is_answered_in_one() -> None:
    def answer(messages: list[Any]) -> None:
        for message in messages:
            answering.link.send(message)

    answering = End(answer)
    async with connected(asking := End(), answering):
        for _ in range(3):
            asking.link.send(Listening())
        await eventually(lambda: len(asking.heard) == 3)
        assert len(asking.reads) == 1


async def test_more_than_fits_into_a_frame_arrives_in_order() -> None:
    here, there = End(), End()
    async with connected(here, there):
        said = [Hello(number, 0) for number in range(2_500)]
        for message in said:
            here.link.send(message)
        await eventually(lambda: len(there.heard) == len(said))
        assert there.heard == said


async def test_the_last_words_are_heard() -> None:
    here, there = End(), End()
    async with connected(here, there):
        here.link.send(Synced())
        here.link.close()
        await eventually(lambda: there.was_lost)
        assert there.heard == [Synced()]
        here.link.send(Synced())  # to nobody
        here.link.close()
        await here.link.is_over.wait()


@pytest.mark.parametrize("is_nonsense", [True, False])
async def test_who_says_what_makes_no_sense_is_cut_off(
    is_nonsense: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def complain(messages: list[Any]) -> None:
        raise KeyError("nobody knows that request")

    here, there = End(), End(complain)
    async with connected(here, there):
        assert here.link._transport is not None
        here.link._transport.write(b"\0\0\0\x01x" if is_nonsense else encode_frame([Synced()]))
        await eventually(lambda: here.was_lost == there.was_lost == 1)
    assert "cut off from somebody" in caplog.text


async def test_who_does_not_listen_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link_module, "_MAX_PENDING_BYTES", 1 << 20)
    here, there = End(), End()
    async with connected(here, there):
        assert there.link._transport is not None
        there.link._transport.pause_reading()
        big = Admit(1, RequestClaims(id="x" * 4_000))
        for _ in range(500):
            here.link.send(big)
        await eventually(lambda: here.was_lost == 1)
    assert "which does not listen" in caplog.text


async def test_nobody_but_the_same_user_is_let_in(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    caplog.set_level(logging.ERROR)
    here, there = End(), End()
    async with connected(here, there):
        await eventually(lambda: here.was_lost == there.was_lost == 1)
    assert "which is of another user" in caplog.text


def test_the_address_is_in_no_file_system() -> None:
    with listen(1) as first, listen(1) as second:
        assert first.getsockname() != second.getsockname()
        assert first.getsockname().startswith(b"\0")
