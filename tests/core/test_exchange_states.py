"""The table of states: each row and each column of it, applied in the one place that does."""

import itertools

import pytest

from epp.core.exchange_states import TRANSITIONS, Event, State

from .support import Harness

_PAIRS = list(itertools.product(State, Event))


@pytest.mark.parametrize(
    ("state", "event"), _PAIRS, ids=[f"{state.name}-{event.name}" for state, event in _PAIRS]
)
def test_every_step_is_the_tables_or_a_mistake(state: State, event: Event) -> None:
    exchange, _ = Harness().exchange()
    exchange.state = state
    target = TRANSITIONS[state].get(event)
    if target is None:
        with pytest.raises(AssertionError, match="cannot take"):
            exchange._step(event)
        assert exchange.state is state
    else:
        exchange._step(event)
        assert exchange.state is target


def test_every_state_has_its_row_and_every_event_its_use() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)


def test_every_state_can_be_reached_and_left_by_the_streams_end() -> None:
    reached, todo = {State.NEW}, [State.NEW]
    while todo:
        for target in TRANSITIONS[todo.pop()].values():
            if target not in reached:
                reached.add(target)
                todo.append(target)
    assert reached == set(State)
    assert all(
        row[Event.CLOSED] is State.CLOSED
        for state, row in TRANSITIONS.items()
        if state is not State.CLOSED
    )
    assert not TRANSITIONS[State.CLOSED]


def test_nothing_leads_back() -> None:
    """The order of the states is the order of a life, so no exchange can go in circles."""
    order = list(State)
    for state, row in TRANSITIONS.items():
        assert all(order.index(target) > order.index(state) for target in row.values())


def test_an_exchange_that_is_not_bound_says_so() -> None:
    exchange, _ = Harness().exchange()
    with pytest.raises(AssertionError, match="not bound"):
        exchange._bound_gate()
