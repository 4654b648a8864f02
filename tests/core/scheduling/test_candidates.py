"""The candidates of one pick."""

import numpy as np

from epp.core.scheduling import Candidates

from .support import candidates_of, pool_of, told


def test_columns_are_those_of_the_candidates_in_their_order() -> None:
    loads = [told(slot, 10 * slot, slot / 10, attributes={"heat": slot}) for slot in range(5)]
    pool = pool_of(loads, in_flight=range(5), tokens=7)
    some = candidates_of(pool, slots=[3, 0, 4])
    assert len(some) == 3
    assert [member.name for member in some.endpoints()] == [
        f"default/server-{slot}" for slot in (3, 0, 4)
    ]
    assert some.in_flight.tolist() == [3, 0, 4]
    assert some.in_flight_tokens.tolist() == [21, 0, 28]
    assert some.used_ratio.tolist() == [0.003, 0, 0.004]
    assert some.waiting.tolist() == [3, 0, 4]
    assert some.running.tolist() == [30, 0, 40]
    assert some.kv_ratio.tolist() == [0.3, 0, 0.4]
    assert some.attribute("heat").tolist() == [3, 0, 4]
    kept = some.where(np.array([True, False, True]))
    assert kept.slots.tolist() == [3, 4]
    assert kept.waiting.tolist() == [3, 4]


def test_what_is_found_out_once_is_known_for_the_pick() -> None:
    asked: list[Candidates] = []

    class Producer:
        def produce(self, candidates: Candidates) -> list[int]:
            asked.append(candidates)
            return [len(asked)]

    first, second = Producer(), Producer()
    every = candidates_of(pool_of(3))
    fewer = every.at(every.slots[:1])
    assert fewer.produced(first) is every.produced(first)
    assert every.produced(second) == [2]
    assert len(asked) == 2
    assert candidates_of(pool_of(3)).produced(first) == [3]
    keys = [every.once("key", lambda: []), fewer.once("key", lambda: [1])]
    assert keys[0] is keys[1]
