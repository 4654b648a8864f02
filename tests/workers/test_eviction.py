"""Evictions where victim and beneficiary are at different workers, and cores come and go."""

import pytest

from epp.workers.hub import Session, _Passer

from ..core.support import destination, resources
from .world import GAP_S, OBJECTIVES, World


def evicting(size: int = 2, *, slots: int = 1) -> World:
    """A world at work with one endpoint, which evicts."""
    pool = resources([1], OBJECTIVES)
    return World(size, resources=pool, max_concurrency=slots, eviction=True).start()


def test_who_waits_at_one_worker_gets_the_place_of_who_runs_at_another() -> None:
    it = evicting()
    batch = it.workers[0].admit("batch")
    it.settle()
    urgent = it.workers[1].admit("urgent")
    it.settle()
    assert batch.evictions == [it.now]
    assert batch.retry_after_s is not None
    assert batch.retry_after_s >= 1
    assert urgent.is_waiting
    it.workers[0].leave(batch)
    it.settle()
    assert urgent.destination == destination(1)
    it.workers[1].leave(urgent)
    it.settle()
    assert it.router.pool.total_in_flight == 0
    assert not any(len(worker.gate) for worker in it.workers)


def test_an_eviction_that_crosses_the_end_finds_nobody() -> None:
    it = evicting()
    batch = it.workers[0].admit("batch")
    it.settle()
    urgent = it.workers[1].admit("urgent")
    assert it.workers[1].to_core is not None
    it.workers[1].to_core.deliver()  # the eviction is on its way
    it.workers[0].leave(batch)
    it.settle()
    assert not batch.evictions
    assert urgent.is_running
    assert it.router.pool.total_in_flight == 1


def test_a_worker_that_dies_confirms_the_evictions_at_it() -> None:
    it = evicting(slots=2)
    batch = [it.workers[0].admit("batch") for _ in range(2)]
    it.settle()
    urgent = [it.workers[1].admit("urgent") for _ in range(2)]
    it.settle()
    assert sum(len(request.evictions) for request in batch) == 1
    it.kill_worker(0)
    it.settle()
    assert all(request.is_running for request in urgent)


def test_a_new_core_can_evict_what_the_one_before_has_dispatched() -> None:
    it = evicting()
    batch = it.workers[0].admit("batch")
    it.settle()
    it.kill_core()
    it.start_core()
    for worker in it.workers:
        worker.connect()
    it.settle()
    urgent = it.workers[1].admit("urgent")
    it.settle()
    assert batch.evictions == [it.now]
    it.workers[0].leave(batch)
    it.settle()
    assert urgent.is_running


def test_a_worker_that_decides_alone_evicts_as_well() -> None:
    it = evicting(1)
    worker = it.workers[0]
    batch = worker.admit("batch")
    it.settle()
    it.kill_core()
    it.advance(GAP_S)
    urgent = worker.admit("urgent")
    assert batch.evictions == [it.now]
    worker.leave(batch)
    assert urgent.is_running


def test_a_request_that_is_no_inference_is_never_evicted() -> None:
    session = Session(lambda message: None, lambda: None)
    with pytest.raises(AssertionError, match="no inference was evicted"):
        _Passer(session, 1).evicted(1, 0.0)
