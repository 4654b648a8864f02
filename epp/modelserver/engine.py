"""The batching engine as a model: continuous batching over a paged KV cache, without a clock.

It follows vLLM's scheduler. Each iteration has a budget of tokens. Running sequences come first, in
order of admission: one token each while decoding, a chunk of their prompt before that. If a running
sequence needs a block and none is free, the one admitted last is preempted: it loses its blocks and
goes back to the head of the queue, to be computed anew. What is left of the budget goes to waiting
sequences, first come first served; a sequence whose adapter has no slot is passed over. The tokens
of an iteration come out at its end.

Time is whatever the caller says: a server passes its clock, a simulation its virtual one.
"""

from collections import OrderedDict
from itertools import islice

import msgspec

from epp.modelserver.kv_cache import KvCache
from epp.modelserver.latency import LatencyModel
from epp.modelserver.lora import LoraSlots
from epp.modelserver.sequence import EngineRequest, Sequence, StepResult, TokenEvent
from epp.modelserver.stats import EngineStats

__all__ = ["Engine", "EngineOptions"]


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The size of an engine: sequences, blocks of ``block_size`` tokens, tokens per iteration.

    ``max_model_len`` bounds prompt and output together, in tokens; ``None`` means all that the KV
    cache holds.
    """

    max_num_seqs: int = 32
    num_kv_blocks: int = 4096
    block_size: int = 16
    max_num_batched_tokens: int = 2048
    max_model_len: int | None = None
    max_loras: int = 4
    prefix_caching: bool = True
    latency: LatencyModel = LatencyModel()

    @property
    def context_tokens(self) -> int:
        """The most tokens that prompt and output of one request may have together."""
        capacity = self.num_kv_blocks * self.block_size
        return capacity if self.max_model_len is None else min(self.max_model_len, capacity)


class Engine:
    """Requests in, tokens out. ``stats`` counts; ``wake_at`` says when to call :meth:`step`."""

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.stats = EngineStats()
        self._kv = KvCache(options.num_kv_blocks, prefix_caching=options.prefix_caching)
        self._loras = LoraSlots(options.max_loras)
        self._waiting: OrderedDict[str, Sequence] = OrderedDict()
        self._running: dict[str, Sequence] = {}
        self._batch: list[tuple[Sequence, int]] = []
        self._wake_at: float | None = None

    @property
    def wake_at(self) -> float | None:
        """When :meth:`step` has something to do, in the caller's seconds; ``None`` while idle."""
        return self._wake_at

    @property
    def num_running(self) -> int:
        """How many sequences hold a slot."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """How many sequences wait for a slot, blocks or an adapter."""
        return len(self._waiting)

    @property
    def kv_usage_ratio(self) -> float:
        """The share of KV blocks in use, 0 to 1."""
        return self._kv.usage_ratio

    def running_adapters(self) -> list[str]:
        """Return the adapters of the running sequences, sorted."""
        return self._loras.in_use()

    def waiting_adapters(self) -> list[str]:
        """Return the adapters of the waiting sequences, sorted."""
        return sorted({s.request.adapter for s in self._waiting.values() if s.request.adapter})

    def add(self, request: EngineRequest, now: float) -> None:
        """Queue a request.

        Raises ``ValueError`` if it could never run: no tokens, more tokens than ``context_tokens``,
        an adapter where there are no slots, or the id of an unfinished request.
        """
        if request.prompt_tokens < 1 or request.output_tokens < 1:
            raise ValueError("a request needs at least one prompt token and one output token")
        if request.prompt_tokens + request.output_tokens > self.options.context_tokens:
            raise ValueError(f"a request has at most {self.options.context_tokens} tokens")
        if request.adapter is not None and not self.options.max_loras:
            raise ValueError("this engine has no adapter slots")
        if request.request_id in self._running or request.request_id in self._waiting:
            raise ValueError(f"request {request.request_id!r} is there already")
        self._waiting[request.request_id] = Sequence(request, now)
        if self._wake_at is None:
            self._wake_at = now

    def abort(self, request_id: str) -> bool:
        """Drop a request and free what it holds, now; say whether it was there.

        An iteration that includes it still takes its time.
        """
        sequence = self._waiting.pop(request_id, None)
        if sequence is None:
            sequence = self._running.pop(request_id, None)
            if sequence is None:
                return False
            self._free(sequence)
        sequence.is_alive = False
        return True

    def step(self, now: float) -> StepResult:
        """End the iteration that is due and begin the next one at ``now``.

        Does nothing before ``wake_at``.
        """
        if self._wake_at is None or now < self._wake_at:
            return StepResult([], [])
        tokens = self._finish_batch(now)
        started, duration_s = self._begin_batch(now)
        self._wake_at = now + duration_s if self._batch else None
        return StepResult(tokens, started)

    def _finish_batch(self, now: float) -> list[TokenEvent]:
        tokens: list[TokenEvent] = []
        for sequence, count in self._batch:
            if sequence.is_alive:
                sequence.computed += count
                self._publish(sequence)
                if not sequence.missing:
                    tokens.append(self._generate(sequence, now))
        self.stats.generation_tokens += len(tokens)
        return tokens

    def _publish(self, sequence: Sequence) -> None:
        hashes = sequence.request.block_hashes
        full = min(sequence.computed // self.options.block_size, len(hashes))
        for index in range(sequence.published, full):
            self._kv.publish(sequence.blocks[index], hashes[index])
        sequence.published = max(sequence.published, full)

    def _generate(self, sequence: Sequence, now: float) -> TokenEvent:
        request = sequence.request
        if sequence.generated:
            self.stats.inter_token_s.observe(now - sequence.last_token_at)
        else:
            self.stats.first_token_s.observe(now - sequence.arrived_at)
            self.stats.prompt_tokens += request.prompt_tokens
        sequence.generated += 1
        sequence.last_token_at = now
        if sequence.generated < request.output_tokens:
            return TokenEvent(request.request_id)
        del self._running[request.request_id]
        sequence.is_alive = False
        self._free(sequence)
        self.stats.finished[request.finish_reason] += 1
        self.stats.request_s.observe(now - sequence.arrived_at)
        return TokenEvent(request.request_id, request.finish_reason)

    def _begin_batch(self, now: float) -> tuple[list[str], float]:
        self._batch = []
        budget, has_preempted = self._schedule_running()
        started: list[str] = []
        loras_loaded = 0
        if not has_preempted:
            started, loras_loaded = self._admit(budget, now)
        self.stats.adapter_loads += loras_loaded
        self.stats.peak_running = max(self.stats.peak_running, len(self._running))
        decoding = sum(1 for sequence, _ in self._batch if sequence.is_decoding)
        prefill = sum(count for sequence, count in self._batch if not sequence.is_decoding)
        duration_s = self.options.latency.step_s(
            prefill_tokens=prefill, decoding_seqs=decoding, loras_loaded=loras_loaded
        )
        return started, duration_s

    def _schedule_running(self) -> tuple[int, bool]:
        """Plan the running sequences; return the budget left and whether one was preempted."""
        budget = self.options.max_num_batched_tokens
        has_preempted = False
        for sequence in list(self._running.values()):
            if not budget:
                break
            # Victims are taken from the end, so a sequence that is already planned is never one.
            while sequence.request.request_id in self._running:
                count = min(sequence.missing, budget)
                if self._grow(sequence, count):
                    self._batch.append((sequence, count))
                    budget -= count
                    break
                self._preempt_last()
                has_preempted = True
        return budget, has_preempted

    def _grow(self, sequence: Sequence, count: int) -> bool:
        """Give a sequence the blocks for ``count`` more tokens, if there are enough."""
        fresh = self._blocks_for(sequence.computed + count) - len(sequence.blocks)
        blocks = self._kv.take((), fresh)
        if blocks is None:
            return False
        sequence.blocks += blocks
        return True

    def _preempt_last(self) -> None:
        request_id, sequence = self._running.popitem()
        self._free(sequence)
        sequence.computed = 0
        self._waiting[request_id] = sequence
        self._waiting.move_to_end(request_id, last=False)
        self.stats.preemptions += 1

    def _admit(self, budget: int, now: float) -> tuple[list[str], int]:
        """Move waiting sequences into the batch; return the new ones and the adapters loaded."""
        admitted: list[Sequence] = []
        loras_loaded = 0
        for sequence in self._waiting.values():
            if not budget or len(self._running) + len(admitted) >= self.options.max_num_seqs:
                break
            if not self._loras.has_room_for(sequence.request.adapter):
                continue
            count = self._place(sequence, budget)
            if not count:
                break
            budget -= count
            loras_loaded += self._loras.take(sequence.request.adapter)
            self._batch.append((sequence, count))
            admitted.append(sequence)
        started: list[str] = []
        for sequence in admitted:
            del self._waiting[sequence.request.request_id]
            self._running[sequence.request.request_id] = sequence
            if not sequence.has_started:
                self._start(sequence, now)
                started.append(sequence.request.request_id)
        return started, loras_loaded

    def _place(self, sequence: Sequence, budget: int) -> int:
        """Give a waiting sequence its cached prefix and blocks for the rest.

        Returns how many tokens it computes in this iteration, 0 if there are not enough blocks.
        """
        # The last known token is always computed: the next one is sampled from its output.
        matchable = (sequence.missing - 1) // self.options.block_size
        cached = self._kv.match(islice(sequence.request.block_hashes, matchable))
        hit_tokens = len(cached) * self.options.block_size
        count = min(sequence.missing - hit_tokens, budget)
        fresh = self._blocks_for(hit_tokens + count) - len(cached)
        blocks = self._kv.take(cached, fresh)
        if blocks is None:
            return 0
        sequence.blocks = blocks
        sequence.computed = hit_tokens
        sequence.published = len(cached)
        return count

    def _start(self, sequence: Sequence, now: float) -> None:
        sequence.has_started = True
        self.stats.queue_s.observe(now - sequence.arrived_at)
        self.stats.prefix_cache_queried_tokens += sequence.request.prompt_tokens
        self.stats.prefix_cache_hit_tokens += sequence.computed

    def _free(self, sequence: Sequence) -> None:
        self._kv.release(sequence.blocks)
        sequence.blocks = []
        self._loras.give_back(sequence.request.adapter)

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.options.block_size)
