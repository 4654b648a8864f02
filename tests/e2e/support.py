"""Waiting, metrics, request bodies: what all end-to-end tests need."""

import asyncio
import base64
import json
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from google.protobuf.struct_pb2 import Value

__all__ = [
    "HINT_HEADER",
    "PATIENCE_S",
    "Metrics",
    "chat",
    "completion",
    "eventually",
    "nobody_listens",
    "spread",
    "subset_hint",
]

PATIENCE_S = 20.0
"""How long a client waits for anything before its test fails: hanging is a failure."""

HINT_HEADER = "x-test-subset"
"""The value for ``subset_hint_header`` that goes with :func:`subset_hint`."""

_SAMPLE = re.compile(rb"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


async def eventually(
    condition: Callable[[], object | Awaitable[object]],
    *,
    timeout_s: float = 15.0,
    every_s: float = 0.01,
) -> float:
    """Wait until ``condition`` holds, or has stopped to fail; return when that was, monotonic.

    A condition that fails to the end is called once more, so that its own assertion is the error.
    """
    give_up_s = time.monotonic() + timeout_s
    while True:
        try:
            holds = condition()
            if isinstance(holds, Awaitable):
                holds = await holds
            if holds is None or holds:
                return time.monotonic()
        except (AssertionError, OSError):
            if time.monotonic() > give_up_s:
                raise
        else:
            assert time.monotonic() <= give_up_s, f"never came true in {timeout_s} s: {condition}"
        await asyncio.sleep(every_s)


class Metrics:
    """A page of metrics, read."""

    def __init__(self, page: bytes) -> None:
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for name, labels, value in _SAMPLE.findall(page):
            found = dict(_LABEL.findall(labels.decode()))
            self._samples.setdefault(name.decode(), []).append((found, float(value)))

    def sum(self, name: str, **labels: object) -> float:
        """Return the sum over all series of ``llm_d_epp_<name>`` with these labels."""
        return sum(value for _, value in self.series(name, **labels))

    def series(self, name: str, **labels: object) -> list[tuple[dict[str, str], float]]:
        """Return the series of ``llm_d_epp_<name>`` with these labels."""
        wanted = {key: str(value) for key, value in labels.items()}
        return [
            (found, value)
            for found, value in self._samples.get(f"llm_d_epp_{name}", ())
            if wanted.items() <= found.items()
        ]

    def queued(self, **labels: object) -> int:
        """Return how many requests wait, at a ``priority`` or at all."""
        return int(self.sum("flow_control_queue_size", **labels))

    def leases(self) -> dict[str, int]:
        """Return the requests in flight by ``ip:port``."""
        series = self.series("inflight_requests")
        return {labels["model_server_endpoint"]: int(value) for labels, value in series}

    def outcomes(self, **labels: object) -> dict[str, int]:
        """Return how many waits ended how; outcomes that never were are left out."""
        counts: dict[str, int] = {}
        for found, value in self.series("flow_control_requests_total", **labels):
            if value:
                counts[found["outcome"]] = counts.get(found["outcome"], 0) + int(value)
        return counts

    def assert_at_rest(self) -> None:
        """Nothing waits, nothing runs, no stream is open, no byte is held."""
        held = {
            name: self.sum(name)
            for name in (
                "flow_control_queue_size",
                "flow_control_queue_bytes",
                "inflight_requests",
                "request_running",
                "extproc_streams_inflight",
            )
        }
        assert not any(held.values()), held


def completion(prompt: str = "hello", max_tokens: int = 4, **more: object) -> bytes:
    """Return the body of a completion request."""
    content = {"model": "m", "prompt": prompt, "max_tokens": max_tokens, **more}
    return json.dumps(content).encode()


def chat(text: str = "hello", max_tokens: int = 4, **more: object) -> bytes:
    """Return the body of a chat request."""
    messages = [{"role": "user", "content": text}]
    content = {"model": "m", "messages": messages, "max_tokens": max_tokens, **more}
    return json.dumps(content).encode()


def spread(size_bytes: int) -> bytes:
    """Return a body in which every piece is recognisably in its own place."""
    line = b"%015x\n"
    return b"".join(line % number for number in range(size_bytes // 16 + 1))[:size_bytes]


def subset_hint(*destinations: str) -> tuple[str, str]:
    """Return the header by which a gateway with ``subset_hint_header`` gives this hint."""
    value = Value()
    value.list_value.SetInParent()  # an empty list is a hint, too
    value.list_value.extend(destinations)
    return HINT_HEADER, base64.b64encode(value.SerializeToString()).decode()


@contextmanager
def nobody_listens() -> Iterator[int]:
    """Give a port that refuses connections and that nobody else can get meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
