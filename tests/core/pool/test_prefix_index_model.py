"""The prefix index against a naive model: whatever happens in whatever order, the same is held."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from epp.core.pool.prefix_index import PrefixIndex, Recording

from .prefix_model import PrefixModel, chain_of

_SLOTS = 4
_CAPACITY = 14
_slots = st.integers(0, _SLOTS - 1)
_spaces = st.sampled_from(["", "salt"])
_prompts = st.builds(
    str.__add__, st.sampled_from(["", "", "aaaa", "aaaabbbb"]), st.text("ab", max_size=10)
)


class PrefixMachine(RuleBasedStateMachine):
    """Every count equals the model's, which looks at each block by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex(default_blocks=_CAPACITY)
        self.models = [PrefixModel(_CAPACITY) for _ in range(_SLOTS)]
        self.now = 0
        self.seen: set[tuple[str, str]] = set()
        self.recordings: list[tuple[Recording, str, str, int, int]] = []

    @rule(space=_spaces, prompt=_prompts, slot=_slots)
    def record(self, space: str, prompt: str, slot: int) -> None:
        self._record(space, prompt, slot)

    @rule(data=st.data(), more=st.text("ab", max_size=6), slot=_slots)
    def go_on(self, data: st.DataObject, more: str, slot: int) -> None:
        """Record what goes on where another prompt ended, or a head of it."""
        space, prompt = data.draw(st.sampled_from([("", ""), *sorted(self.seen)]))
        self._record(space, prompt[: data.draw(st.integers(0, len(prompt)))] + more, slot)

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        if self.recordings:
            position = data.draw(st.integers(0, len(self.recordings) - 1))
            recording, space, prompt, slot, now = self.recordings.pop(position)
            self.index.forget(recording)
            self.models[slot].forget(space, prompt, recording.held_before, now)

    @rule(slot=_slots, blocks=st.integers(0, 30))
    def set_capacity(self, slot: int, blocks: int) -> None:
        self.index.set_capacity(slot, blocks)
        self.models[slot].capacity = blocks
        self.models[slot].shrink()

    @rule(slot=_slots)
    def clear(self, slot: int) -> None:
        self.index.clear(slot)
        self.models[slot].used.clear()

    def _record(self, space: str, prompt: str, slot: int) -> None:
        self.now += 1
        model = self.models[slot]
        before = model.count(space, prompt[: model.capacity])
        recording = self.index.record(("model", space), chain_of(prompt), slot)
        assert recording.held_before == before
        model.record(space, prompt, self.now)
        self.seen.add((space, prompt))
        self.recordings.append((recording, space, prompt, slot, self.now))

    @invariant()
    def every_count_is_the_models(self) -> None:
        for space, prompt in self.seen:
            match = self.index.match(("model", space), chain_of(prompt))
            counts = [model.count(space, prompt) for model in self.models]
            assert (match is None) == (not any(counts))
            if match is not None:
                assert match.column(_SLOTS).tolist() == counts
                assert match.counts == {slot: held for slot, held in enumerate(counts) if held}

    @invariant()
    def as_many_blocks_are_held(self) -> None:
        for slot, model in enumerate(self.models):
            assert self.index.held(slot) == len(model.used) <= model.capacity
        assert self.index.blocks == sum(len(model.used) for model in self.models)
        assert self.index.nodes <= self.index.holdings <= self.index.blocks

    def teardown(self) -> None:
        for slot in range(_SLOTS):
            self.index.clear(slot)
        assert (self.index.blocks, self.index.holdings, self.index.nodes) == (0, 0, 0)


TestPrefixMachine = PrefixMachine.TestCase
TestPrefixMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
