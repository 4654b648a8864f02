"""A simulated model server that is fast to simulate: it looks only at what changes its batch.

It is the model of :class:`epp.modelserver.engine.Engine` (continuous batching, a budget of tokens
for each iteration, prompts in chunks, a queue where sequences or KV blocks are used up, preemption
of the sequence admitted last) without a step for each token. As long as a batch stays the same its
iterations are all of the same length, so they are one segment. In it every decoding sequence gets
as many tokens as there are iterations; therefore one count of decoded tokens serves for all of
them, and a heap of the counts at which they end says when the first does. An arrival that can be
admitted ends the segment with the iteration that runs.

Prefixes are cached as :class:`epp.simulation.prefix_store.PrefixStore` models it: the cache has the
memory that running sequences leave, and what a sequence has computed is found once the segment in
which it did is over.

What is left out of the model: the exact rounding of KV use to blocks; half a block is counted for
each sequence.
"""

import heapq
import math
import sys
from collections import deque
from collections.abc import Callable, KeysView
from operator import itemgetter

from epp.core.pool import EngineLoad
from epp.modelserver.engine import EngineOptions
from epp.modelserver.lora import LoraSlots
from epp.simulation.prefix_store import Piece, PrefixStore
from epp.simulation.work import EngineListener, Work

__all__ = ["SimulatedEngine"]


class SimulatedEngine:
    """One engine. ``schedule(time_s, action)`` has :meth:`wake` called; a call that is out of date
    does nothing."""

    __slots__ = ("_begun_s", "_block_tokens", "_budget", "_capacity", "_completing", "_count",
                 "_decode_s", "_decode_seq_s", "_decoding", "_ends", "_half_block", "_is_passing",
                 "_iterations", "_listener", "_loading", "_lora_load_s", "_loras", "_max_running",
                 "_options", "_prefill", "_prefill_s", "_prefilling", "_running", "_schedule",
                 "_sequence", "_step_s", "_store", "_used", "_wake", "_wake_at", "preemptions",
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
        self._lora_load_s = latency.lora_load_s * scale
        self._options = options
        self._budget = options.max_num_batched_tokens
        self._max_running = options.max_num_seqs
        self._capacity = options.num_kv_blocks * options.block_size
        self._block_tokens = options.block_size
        self._half_block = options.block_size / 2.0
        self._store = PrefixStore(options.block_size) if options.prefix_caching else None
        self._loras = LoraSlots(options.max_loras)
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
        self._used = 0  # tokens in the KV cache that running sequences use
        self._is_passing = True  # whether all that wait do so for an adapter
        self._loading = 0  # adapters, in the iteration that runs
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
        return EngineLoad(
            waiting=len(self.waiting),
            running=len(self._running),
            kv_ratio=min(1.0, ratio),
            active_adapters=frozenset(self._loras.in_use()),
            waiting_adapters=frozenset(work.adapter for work in self.waiting if work.adapter),
            max_adapters=self._loras.max_loras,
            block_tokens=self._block_tokens,
            cache_blocks=self._options.num_kv_blocks,
        )

    def cached_tokens(self, work: Work) -> int:
        """Return how much of a sequence's prompt is in the cache."""
        return self._match(work)[0]

    def first_token_in_s(self, work: Work, now: float) -> float:
        """Return about how long a sequence's first token would take if it were added now: what is
        to be computed before, its own prompt, and the wait for a place in the batch."""
        left = max(0, self._iterations - 1 - self._passed(now)) if self._wake_at >= 0.0 else 0
        tokens = work.missing - self._match(work)[0]
        tokens += sum(other.missing - self._match(other)[0] for other in self.waiting)
        if self._prefilling is not None:
            tokens += self._prefilling.missing + left * self._prefill
        iteration_s = self._decode_s + self._decode_seq_s * self._decoding
        iterations = -(-tokens // max(1, self._budget - self._decoding))
        seconds = tokens * self._prefill_s + iterations * iteration_s
        if not self._loras.has_room_for(work.adapter):
            ends_at: dict[str | None, int] = {}
            for other in self._running:
                if other.adapter is not None:
                    ends_at[other.adapter] = max(ends_at.get(other.adapter, 0), other.ends_at)
            left_of_first = min(ends_at.values()) - self._count - self._passed(now)
            seconds += max(0, left_of_first) * iteration_s
        seconds += self._place_in_s(tokens, now)
        if self._wake_at >= 0.0:
            seconds += max(0.0, self._wake_at - left * self._step_s - now)
        return seconds

    def _place_in_s(self, tokens: int, now: float) -> float:
        """Return how long it takes until the batch and the cache have room for all that wait, one
        more, and so many tokens."""
        requests = len(self._running) + len(self.waiting) + 1 - self._max_running
        tokens -= self._room()
        for ends_at, _, work in sorted(self._ends, key=itemgetter(0)):
            if requests <= 0 and tokens <= 0:
                return 0.0
            if work.ends_at == ends_at:
                requests -= 1
                tokens -= work.prompt_tokens + work.output_tokens - work.shared_tokens
                if requests <= 0 and tokens <= 0:
                    return (ends_at - self._count - self._passed(now)) * self._step_s
        return 0.0

    @property
    def requests(self) -> int:
        """The sequences that wait or run."""
        return len(self.waiting) + len(self._running)

    def add(self, work: Work, now: float) -> None:
        """Queue a sequence. It has at least one token each way and fits into the KV cache."""
        self.waiting.append(work)
        if self._wake_at < 0.0:
            self._begin(now)
        elif (
            self._iterations > 1
            and (self._is_passing or len(self.waiting) == 1)
            and self._prefilling is None
            and len(self._running) < self._max_running
            and self._loras.has_room_for(work.adapter)
        ):
            self._cut(now)

    def wake(self, now: float) -> None:
        """End the segment that is due and begin the next one."""
        if now != self._wake_at:
            return
        iterations = self._iterations
        self._count += iterations
        self._used += iterations * (self._decoding + self._prefill)
        self._evict()
        if self._prefilling is not None:
            self._publish(self._prefilling, self._known(self._prefilling))
        ended = self._take_ended()
        began: list[Work] = []
        for work in self._completing:
            self._publish(work, self._known(work))
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
        # The last token is never computed.
        self._give_back(work, work.prompt_tokens + work.output_tokens - 1)
        work.ends_at = -1

    def _give_back(self, work: Work, computed_tokens: int) -> None:
        """Take back what a sequence holds, and keep cached what it has computed."""
        self._loras.give_back(work.adapter)
        self._publish(work, computed_tokens)
        self._used -= computed_tokens - work.shared_tokens
        work.shared_tokens = 0
        if work.held and self._store is not None:
            self._used -= self._store.release(work.held) * self._block_tokens
            work.held.clear()

    def _publish(self, work: Work, computed_tokens: int) -> None:
        if work.text and self._store is not None:
            added, revived = self._store.publish(work.text, work.held, computed_tokens)
            work.shared_tokens += added * self._block_tokens
            self._used += revived * self._block_tokens

    def _known(self, work: Work) -> int:
        """Return how many tokens of a sequence that does not decode are computed."""
        return work.prompt_tokens + work.generated - work.missing

    def _evict(self) -> None:
        """Have the prefix cache make way for what the running sequences use."""
        if self._store is not None and self._store.idle_blocks:
            self._store.shrink(self._room() // self._block_tokens)

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
        self._loading = 0
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
            self._decode_s
            + self._decode_seq_s * decoding
            + self._prefill_s * self._prefill
            + self._lora_load_s * self._loading
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
            self._give_back(work, self._known(work))
        else:
            work.generated = work.output_tokens - (work.ends_at - self._count)
            work.ends_at = -1
            self._decoding -= 1
            self._give_back(work, work.prompt_tokens + work.generated - 1)
        work.missing = work.prompt_tokens + work.generated
        self.waiting.appendleft(work)
        self.preemptions += 1

    def _admit(self, budget: int) -> bool:
        """Move waiting sequences into the batch; return whether there were any."""
        waiting, running, loras = self.waiting, self._running, self._loras
        room = self._room() - self._decoding - self._prefill
        passed: list[Work] = []
        has_admitted = False
        while budget and waiting and len(running) < self._max_running:
            work = waiting[0]
            if not loras.has_room_for(work.adapter):
                passed.append(waiting.popleft())
                continue
            cached, pieces = self._match(work)
            tokens = min(work.missing - cached, budget)
            room -= self._idle_tokens(pieces) + math.ceil(tokens + self._half_block)
            if room < 0 and running:
                break
            running[waiting.popleft()] = None
            self._loading += loras.take(work.adapter)
            self._hold(work, pieces, cached, room)
            work.missing -= cached + tokens
            self._prefill += tokens
            budget -= tokens
            has_admitted = True
            if work.missing:
                self._prefilling = work
            else:
                self._completing.append(work)
        self._is_passing = not waiting
        waiting.extendleft(reversed(passed))
        return has_admitted

    def _match(self, work: Work) -> tuple[int, list[Piece]]:
        """Return how many tokens of a waiting sequence are cached, and in which pieces."""
        if not work.text or self._store is None:
            return 0, []
        # The last known token is always computed: the next one is sampled from its output.
        blocks, pieces = self._store.match(work.text, (work.missing - 1) // self._block_tokens)
        return blocks * self._block_tokens, pieces

    def _idle_tokens(self, pieces: list[Piece]) -> int:
        return self._store.idle_in(pieces) * self._block_tokens if self._store else 0

    def _hold(self, work: Work, pieces: list[Piece], cached: int, room: int) -> None:
        """Give a sequence the pieces that were found, with so much room left in the cache."""
        if work.cached_tokens < 0:
            work.cached_tokens = cached
        if self._store is not None:
            self._used += self._idle_tokens(pieces)
            self._store.hold(pieces)
            work.held += pieces
            work.shared_tokens = cached
            self._store.shrink(room // self._block_tokens)
