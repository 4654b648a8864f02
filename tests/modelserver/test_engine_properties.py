"""Any order of requests, aborts and steps: limits hold, nothing leaks, all the rest ends."""

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from .engines import make_engine, request

if TYPE_CHECKING:
    from epp.modelserver.sequence import EngineRequest

_MAX_SEQS = 3
_MAX_LORAS = 2


class EngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine = make_engine(
            max_num_seqs=_MAX_SEQS,
            num_kv_blocks=10,
            max_num_batched_tokens=8,
            max_loras=_MAX_LORAS,
        )
        self.now = 0.0
        self.open: dict[str, EngineRequest] = {}
        self.tokens: dict[str, int] = {}
        self.count = 0

    @rule(
        prompt=st.integers(1, 24),
        output=st.integers(1, 16),
        chain=st.sampled_from(["", "x", "y"]),
        adapter=st.sampled_from([None, None, "one", "two", "three"]),
    )
    def add(self, prompt: int, output: int, chain: str, adapter: str | None) -> None:
        name = str(self.count)
        self.count += 1
        new = request(
            name, prompt, output, chain=f"{chain}/{adapter}" * bool(chain), adapter=adapter
        )
        self.engine.add(new, self.now)
        self.open[name] = new
        self.tokens[name] = 0

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        assert self.engine.abort(name)
        assert not self.engine.abort(name)
        del self.open[name]

    @rule(late_s=st.sampled_from([0.0, 0.0, 3.0]))
    def step(self, late_s: float) -> None:
        if self.engine.wake_at is not None:
            assert self.engine.wake_at >= self.now
            self.now = self.engine.wake_at + late_s
        seen = set()
        for event in self.engine.step(self.now).tokens:
            name = event.request_id
            assert name not in seen
            seen.add(name)
            self.tokens[name] += 1
            is_last = self.tokens[name] == self.open[name].output_tokens
            assert (event.finish_reason is not None) == is_last
            if is_last:
                del self.open[name]

    @invariant()
    def limits_hold(self) -> None:
        engine = self.engine
        assert engine.num_running <= _MAX_SEQS
        assert engine.num_running + engine.num_waiting == len(self.open)
        assert len(engine.running_adapters()) <= _MAX_LORAS
        assert 0.0 <= engine.kv_usage_ratio <= 1.0
        assert engine.num_running or engine.kv_usage_ratio == 0.0
        assert engine.wake_at is not None or not self.open

    def teardown(self) -> None:
        for _ in range(10_000):
            if self.engine.wake_at is None:
                break
            self.step(0.0)
        assert not self.open
        assert self.engine.kv_usage_ratio == 0.0
        assert self.engine.running_adapters() == []
        assert self.engine.stats.generation_tokens == sum(self.tokens.values())


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
