"""A simulated model server that is fast to simulate: it looks only at what changes its batch.

It is the model of :class:`epp.modelserver.engine.Engine` (continuous batching, a budget of tokens
for each iteration, prompts in chunks, a queue where sequences or KV blocks are used up, preemption
of the sequence admitted last) without a step for each token. As long as a batch stays the same its
iterations are all of the same length, so they are one segment. In it every decoding sequence gets
as many tokens as there are iterations; therefore one count of decoded tokens serves for all of
them, and a heap of the counts at which they end says when the first does. An arrival that can be
admitted ends the segment with the iteration that runs.

What is left out of the model: prefix caching, adapters, and the exact rounding of KV use to blocks;
half a block is counted for each sequence.
"""

import heapq
import math
import sys
from collections import deque
from collections.abc import Callable, KeysView
from typing import Protocol

from epp.core.pool import EngineLoad
from epp.modelserver.engine import EngineOptions

__all__ = ["EngineListener", "SimulatedEngine", "Work"]


class Work:
    """A sequence: how many tokens go in and out, and how far it has come.

    ``missing`` is how many tokens are to be computed before the next one comes out, ``generated``
    how many had come out when it was admitted last, ``ends_at`` the engine's count of decoded
    tokens at which the last one does, below 0 while it is not decoding.
    """

    __slots__ = ("ends_at", "generated", "missing", "output_tokens", "prompt_tokens")

    def __init__(self, prompt_tokens: int, output_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.renew()

    def renew(self) -> None:
        """Begin from the start."""
        self.missing = self.prompt_tokens
        self.generated = 0
        self.ends_at = -1


class EngineListener(Protocol):
    """Who hears of an engine's work."""

    def began(self, work: Work, now: float) -> None:
        """The first token has come out."""

    def ended(self, work: Work, now: float) -> None:
        """The last token has come out."""


class SimulatedEngine:
    """One engine. ``schedule(time_s, action)`` has :meth:`wake` called; a call that is out of date
    does nothing."""

    __slots__ = ("_begun_s", "_budget", "_capacity", "_completing", "_count", "_decode_s",
                 "_decode_seq_s", "_decoding", "_ends", "_half_block", "_iterations", "_listener",
                 "_max_running", "_prefill", "_prefill_s", "_prefilling", "_running", "_schedule",
                 "_sequence", "_step_s", "_used", "_wake", "_wake_at", "preemptions",
                 "waiting")  # fmt: skip

    def __init__(
        self,
        options: EngineOptions,
        schedule: Callable[[float, Callable[[float], None]], None],
        listener: EngineListener,
        slow_factor: float = 1.0,
    ) -> None:
        latency = options.latency
        scale = slow_factor / latency.time_scale
        self._decode_s = latency.decode_step_s * scale
        self._decode_seq_s = latency.decode_step_per_seq_s * scale
        self._prefill_s = scale / latency.prefill_tokens_per_s
        self._budget = options.max_num_batched_tokens
        self._max_running = options.max_num_seqs
        self._capacity = options.num_kv_blocks * options.block_size
        self._half_block = options.block_size / 2.0
        self._schedule = schedule
        self._listener = listener
        self._wake = self.wake  # bound once: it is scheduled for each segment
        self.preemptions = 0
        self.waiting: deque[Work] = deque()
        self._running: dict[Work, None] = {}  # in order of admission
        self._ends: list[tuple[int, int, Work]] = []
        self._sequence = 0
        self._count = 0  # tokens that a sequence would have decoded which was there from the start
        self._decoding = 0
        self._used = 0  # tokens in the KV cache
        self._prefilling: Work | None = None
        self._completing: list[Work] = []
        self._begun_s = 0.0
        self._step_s = 0.0
        self._iterations = 0
        self._prefill = 0
        self._wake_at = -1.0  # below 0 while idle

    @property
    def running(self) -> KeysView[Work]:
        """The sequences that hold a slot, in order of admission."""
        return self._running.keys()

    def generated(self, work: Work, now: float) -> int:
        """Return how many tokens of a sequence that it runs have come out."""
        if work.ends_at < 0:
            return work.generated
        return work.output_tokens - (work.ends_at - self._count - self._passed(now))

    def load(self, now: float) -> EngineLoad:
        """Return what the engine would tell of itself."""
        used = self._used + self._passed(now) * (self._decoding + self._prefill)
        ratio = (used + len(self._running) * self._half_block) / self._capacity
        return EngineLoad(len(self.waiting), len(self._running), min(1.0, ratio))

    def add(self, work: Work, now: float) -> None:
        """Queue a sequence. It has at least one token each way and fits into the KV cache."""
        self.waiting.append(work)
        if self._wake_at < 0.0:
            self._begin(now)
        elif (
            self._iterations > 1
            and len(self.waiting) == 1
            and self._prefilling is None
            and len(self._running) < self._max_running
        ):
            self._cut(now)

    def wake(self, now: float) -> None:
        """End the segment that is due and begin the next one."""
        if now != self._wake_at:
            return
        iterations = self._iterations
        self._count += iterations
        self._used += iterations * (self._decoding + self._prefill)
        ended = self._take_ended()
        began: list[Work] = []
        for work in self._completing:
            if not work.generated:
                began.append(work)
            left = work.output_tokens - work.generated - 1
            if left:
                self._decode(work, left)
            else:
                self._free(work)
                ended.append(work)
        self._begin(now)
        for work in began:
            self._listener.began(work, now)
        for work in ended:
            self._listener.ended(work, now)

    def _passed(self, now: float) -> int:
        """Return how many iterations of the segment are over."""
        if self._wake_at < 0.0:
            return 0
        return min(self._iterations - 1, int((now - self._begun_s) / self._step_s))

    # The end of a segment

    def _take_ended(self) -> list[Work]:
        ends, count = self._ends, self._count
        ended: list[Work] = []
        while ends and ends[0][0] <= count:
            ends_at, _, work = heapq.heappop(ends)
            if work.ends_at == ends_at:  # it was not preempted since
                self._decoding -= 1
                self._free(work)
                ended.append(work)
        return ended

    def _decode(self, work: Work, tokens: int) -> None:
        work.ends_at = self._count + tokens
        self._sequence += 1
        heapq.heappush(self._ends, (work.ends_at, self._sequence, work))
        self._decoding += 1

    def _free(self, work: Work) -> None:
        del self._running[work]
        self._used -= work.prompt_tokens + work.output_tokens - 1  # the last one is never computed
        work.ends_at = -1

    def _cut(self, now: float) -> None:
        """End the segment with the iteration that runs."""
        iterations = int((now - self._begun_s) / self._step_s) + 1
        if iterations < self._iterations:
            self._iterations = iterations
            self._wake_at = self._begun_s + iterations * self._step_s
            self._schedule(self._wake_at, self._wake)

    # The beginning of a segment

    def _begin(self, now: float) -> None:
        self._completing = []
        self._prefill = 0
        has_preempted = self._make_room()
        decoding = self._decoding
        prefilling, chunk = self._prefilling, 0
        iterations = 1 if has_preempted else self._until_next_end()
        if prefilling is not None:
            chunk = self._prefill = self._chunk(prefilling)
            if chunk < prefilling.missing:
                iterations = min(iterations, (prefilling.missing - 1) // chunk)
            else:
                self._prefilling = None
                self._completing.append(prefilling)
                iterations = 1
        if self.waiting and not has_preempted and self._admit(self._budget - decoding - chunk):
            iterations = 1
        if not self._running:
            self._wake_at = -1.0
            return
        iterations = max(1, min(iterations, self._room() // (decoding + self._prefill)))
        if prefilling is not None:
            prefilling.missing -= chunk * iterations
        self._iterations = iterations
        self._step_s = (
            self._decode_s + self._decode_seq_s * decoding + self._prefill_s * self._prefill
        )
        self._begun_s = now
        self._wake_at = now + iterations * self._step_s
        self._schedule(self._wake_at, self._wake)

    def _room(self) -> int:
        """Return how many more tokens the KV cache holds."""
        return int(self._capacity - self._used - len(self._running) * self._half_block)

    def _chunk(self, work: Work) -> int:
        """Return how many tokens of a prompt go into an iteration beside those that decode."""
        return min(work.missing, self._budget - self._decoding)

    def _until_next_end(self) -> int:
        ends = self._ends
        while ends and ends[0][2].ends_at != ends[0][0]:
            heapq.heappop(ends)
        return ends[0][0] - self._count if ends else sys.maxsize

    def _make_room(self) -> bool:
        """Preempt sequences until the KV cache holds the next tokens of all others."""
        has_preempted = False
        while len(self._running) > 1:
            needed = self._decoding
            if self._prefilling is not None:
                needed += self._chunk(self._prefilling)
            if needed <= self._room():
                break
            self._preempt_last()
            has_preempted = True
        return has_preempted

    def _preempt_last(self) -> None:
        work, _ = self._running.popitem()
        if work is self._prefilling:
            self._prefilling = None
            self._used -= work.prompt_tokens + work.generated - work.missing
        else:
            work.generated = work.output_tokens - (work.ends_at - self._count)
            work.ends_at = -1
            self._decoding -= 1
            self._used -= work.prompt_tokens + work.generated - 1
        work.missing = work.prompt_tokens + work.generated
        self.waiting.appendleft(work)
        self.preemptions += 1

    def _admit(self, budget: int) -> bool:
        """Move waiting sequences into the batch; return whether there were any."""
        waiting, running = self.waiting, self._running
        room = self._room() - self._decoding - self._prefill
        has_admitted = False
        while budget and waiting and len(running) < self._max_running:
            work = waiting[0]
            tokens = min(work.missing, budget)
            room -= math.ceil(tokens + self._half_block)
            if room < 0 and running:
                break
            running[waiting.popleft()] = None
            work.missing -= tokens
            self._prefill += tokens
            budget -= tokens
            has_admitted = True
            if work.missing:
                self._prefilling = work
            else:
                self._completing.append(work)
        return has_admitted
