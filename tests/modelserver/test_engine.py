import pytest
from msgspec.structs import replace

from epp.modelserver.engine import Engine
from epp.modelserver.sequence import EngineRequest

from .engines import finish_times, make_engine, request, run


def test_an_engine_without_requests_is_idle() -> None:
    engine = make_engine()
    assert engine.wake_at is None
    assert engine.step(5.0).tokens == []


def test_prefill_brings_the_first_token_and_each_iteration_one_more() -> None:
    engine = make_engine()
    engine.add(request("a", prompt=64, output=3), 10.0)
    # 1 s and 64 tokens at 64/s; then 1 s and 0.125 s for the one decoding sequence.
    assert run(engine) == [(12.0, "a"), (13.125, "a"), (14.25, "a")]
    assert engine.stats.first_token_s.sum == 2.0
    assert engine.stats.inter_token_s.sum == 2.25
    assert engine.stats.request_s.sum == 4.25
    assert (engine.stats.prompt_tokens, engine.stats.generation_tokens) == (64, 3)
    assert engine.stats.finished == {"length": 1, "stop": 0}


def test_a_step_before_its_time_does_nothing() -> None:
    engine = make_engine()
    engine.add(request("a"), 0.0)
    assert engine.step(0.0).started == ["a"]
    assert engine.step(1.0).tokens == []
    assert engine.wake_at == 1.125


def test_a_decode_iteration_grows_with_the_batch() -> None:
    engine = make_engine()
    for name in "abcd":
        engine.add(request(name, prompt=16, output=2), 0.0)
    assert finish_times(engine) == dict.fromkeys("abcd", 2.0 + 1.5)


def test_waiting_requests_get_slots_in_order_of_arrival() -> None:
    engine = make_engine(max_num_seqs=2)
    for name in "abcde":
        engine.add(request(name, output=2), 0.0)
    started = []
    while (now := engine.wake_at) is not None:
        started.append(engine.step(now).started)
        assert engine.num_running <= 2
    assert [names for names in started if names] == [["a", "b"], ["c", "d"], ["e"]]
    assert engine.stats.peak_running == 2
    assert engine.stats.queue_s.sum > 0


def test_a_long_prompt_takes_several_iterations() -> None:
    engine = make_engine(max_num_batched_tokens=32)
    engine.add(request("a", prompt=80), 0.0)
    # 32 + 32 + 16 tokens: three iterations of a second each, and 80/64 s.
    assert run(engine) == [(4.25, "a")]


def test_decoding_goes_on_beside_a_long_prompt() -> None:
    engine = make_engine(max_num_batched_tokens=32)
    engine.add(request("a", prompt=4, output=4), 0.0)
    engine.add(request("b", prompt=60, output=1), 0.0)
    names = [name for _, name in run(engine)]
    assert names[:2] == ["a", "a"]
    assert names.count("a") == 4
    assert names.count("b") == 1


def test_a_cached_prefix_is_not_computed_again() -> None:
    engine = make_engine()
    engine.add(request("a", prompt=64, chain="x"), 0.0)
    run(engine)
    engine.add(request("b", prompt=64, chain="x"), 10.0)
    # All but the last block, since the last token is always computed: 4 tokens.
    assert run(engine) == [(10.0 + 1 + 4 / 64, "b")]
    assert engine.stats.prefix_cache_queried_tokens == 128
    assert engine.stats.prefix_cache_hit_tokens == 60


def test_the_next_turn_of_a_chat_finds_the_answer_of_the_last() -> None:
    engine = make_engine()
    engine.add(request("a", prompt=32, output=33, chain="x"), 0.0)
    run(engine)
    engine.add(request("b", prompt=72, chain="x"), 100.0)
    run(engine)
    assert engine.stats.prefix_cache_hit_tokens == 64


def test_without_prefix_caching_every_prompt_is_computed() -> None:
    engine = make_engine(prefix_caching=False)
    for name in "ab":
        engine.add(request(name, prompt=64, chain="x"), 0.0)
        run(engine)
    assert engine.stats.prefix_cache_hit_tokens == 0


def test_the_last_admitted_is_preempted_when_blocks_run_out() -> None:
    # Eight blocks of four: each of the two needs six in the end.
    engine = make_engine(num_kv_blocks=8, prefix_caching=False)
    for name in "ab":
        engine.add(request(name, prompt=12, output=12), 0.0)
    times = finish_times(engine)
    assert engine.stats.preemptions > 0
    assert times["a"] < times["b"]
    assert engine.stats.generation_tokens == 24
    assert engine.kv_usage_ratio == 0


def test_a_preempted_request_goes_back_before_those_that_wait() -> None:
    engine = make_engine(num_kv_blocks=8, prefix_caching=False, max_num_seqs=2)
    for name in "abc":
        engine.add(request(name, prompt=12, output=12), 0.0)
    while not engine.stats.preemptions:
        engine.step(engine.wake_at or 0.0)
    # There would be room for "c", but "b" is its turn, and needs what "a" still has.
    finished, started = [], []
    while not started:
        step = engine.step(engine.wake_at or 0.0)
        finished += [event.request_id for event in step.tokens if event.finish_reason]
        started += step.started
    assert (finished, started) == (["a"], ["c"])


def test_nothing_is_admitted_in_the_iteration_of_a_preemption() -> None:
    # With so few tokens per iteration, the blocks for the first of them would be there.
    engine = make_engine(num_kv_blocks=8, prefix_caching=False, max_num_batched_tokens=8)
    for name in "ab":
        engine.add(request(name, prompt=12, output=12), 0.0)
    while not engine.stats.preemptions:
        engine.step(engine.wake_at or 0.0)
    assert (engine.num_running, engine.num_waiting) == (1, 1)


def test_a_request_waits_for_blocks() -> None:
    engine = make_engine(num_kv_blocks=4)
    engine.add(request("a", prompt=12, output=4), 0.0)
    engine.add(request("b", prompt=12, output=4), 0.0)
    engine.step(0.0)
    assert (engine.num_running, engine.num_waiting) == (1, 1)
    assert engine.kv_usage_ratio == 0.75
    assert set(finish_times(engine)) == {"a", "b"}


def test_a_request_waits_for_an_adapter_slot_and_others_pass_it() -> None:
    engine = make_engine(max_loras=1)
    engine.add(request("a", output=3, adapter="one"), 0.0)
    engine.add(request("b", adapter="two"), 0.0)
    engine.add(request("c", adapter="one"), 0.0)
    engine.add(request("d"), 0.0)
    assert engine.step(0.0).started == ["a", "c", "d"]
    assert engine.running_adapters() == ["one"]
    assert engine.waiting_adapters() == ["two"]
    times = finish_times(engine)
    assert times["b"] > times["a"]


def test_loading_an_adapter_takes_time_once() -> None:
    engine = make_engine()
    engine.add(request("a", prompt=64, adapter="one"), 0.0)
    assert finish_times(engine) == {"a": 6.0}
    engine.add(request("b", prompt=64, adapter="one"), 10.0)
    assert finish_times(engine) == {"b": 12.0}


def test_an_aborted_request_leaves_its_slot_at_once() -> None:
    engine = make_engine(max_num_seqs=1)
    engine.add(request("a", output=100), 0.0)
    engine.add(request("b", output=2), 0.0)
    engine.add(request("c"), 0.0)
    engine.step(0.0)
    assert engine.abort("a")
    assert (engine.num_running, engine.kv_usage_ratio) == (0, 0.0)
    assert engine.abort("c")
    assert engine.num_waiting == 1
    assert not engine.abort("a")
    assert {name for _, name in run(engine)} == {"b"}


def test_an_id_can_come_again_while_the_iteration_of_its_first_use_lasts() -> None:
    engine = make_engine()
    engine.add(request("a", output=2), 0.0)
    engine.step(0.0)
    engine.abort("a")
    engine.add(request("a", output=3), 0.5)
    assert len(run(engine)) == 3


def test_the_last_token_says_why_it_is_the_last() -> None:
    engine = make_engine()
    engine.add(request("a", output=2, finish_reason="stop"), 0.0)
    reasons = []
    while (now := engine.wake_at) is not None:
        reasons += [event.finish_reason for event in engine.step(now).tokens]
    assert reasons == [None, "stop"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (request("x", prompt=0), "at least one prompt token"),
        (request("x", output=0), "at least one prompt token"),
        (request("x", prompt=30, output=3), "at most 32 tokens"),
        (request("x", adapter="one"), "no adapter slots"),
        (request("there"), "'there' is there already"),
    ],
)
def test_what_can_never_run_is_refused(bad: EngineRequest, why: str) -> None:
    engine: Engine = make_engine(num_kv_blocks=8, max_loras=0)
    engine.add(request("there"), 0.0)
    with pytest.raises(ValueError, match=why):
        engine.add(bad, 0.0)
    assert engine.num_waiting == 1


def test_max_model_len_is_the_smaller_limit() -> None:
    engine = make_engine(num_kv_blocks=8, max_model_len=10)
    assert engine.options.context_tokens == 10


def test_everything_is_faster_by_the_time_scale() -> None:
    slow = make_engine()
    options = slow.options
    fast = Engine(replace(options, latency=replace(options.latency, time_scale=4.0)))
    for engine in (slow, fast):
        engine.add(request("a", output=5), 0.0)
    assert finish_times(slow)["a"] == 4 * finish_times(fast)["a"]
