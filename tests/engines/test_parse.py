"""From pages to loads, with prometheus_client's own writer and reader as the oracle."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from epp.core.pool import EngineLoad
from epp.engines.parse import engine_load
from epp.modelserver.engine import Engine, EngineOptions
from epp.modelserver.metrics import EngineCollector

VLLM = ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc")
OLD_VLLM = (*VLLM[:2], "vllm:gpu_cache_usage_perc")
SGLANG = ("sglang:num_queue_reqs", "sglang:num_running_reqs", "sglang:token_usage")
ENGINES = pytest.mark.parametrize("names", [VLLM, OLD_VLLM, SGLANG])


def page(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def told(waiting: str, running: str, kv_ratio: str = "") -> EngineLoad | None:
    """Return the load of a vLLM page whose samples have these lines behind the names."""
    lines = [name + rest for name, rest in zip(VLLM, (waiting, running, kv_ratio), strict=True)]
    return engine_load(page("# HELP vllm:num_requests_waiting 7", *lines, "end 1"))


@ENGINES
def test_the_three_gauges_of_each_engine(names: tuple[str, str, str]) -> None:
    waiting, running, kv_ratio = names
    written = page(
        "# HELP process_open_fds process open fds",
        "# TYPE process_open_fds gauge",
        "process_open_fds 12.0",
        f"# TYPE {running} gauge",
        f'{running}{{engine="0",model_name="a"}} 3.0',
        f"# TYPE {waiting} gauge",
        f'{waiting}{{model_name="a",engine="0"}} 5.0',
        f'{waiting}_by_reason{{engine="0",reason="capacity"}} 99.0',
        f'{kv_ratio}{{engine="0",model_name="a"}} 0.25',
    )
    assert engine_load(written) == EngineLoad(waiting=5.0, running=3.0, kv_ratio=0.25)


def test_the_newer_name_of_the_kv_cache_counts_where_both_are_there() -> None:
    assert engine_load(
        page(
            "vllm:gpu_cache_usage_perc 0.9",
            "vllm:kv_cache_usage_perc 0.1",
            "vllm:num_requests_running 1",
            "vllm:num_requests_waiting 0",
        )
    ) == EngineLoad(waiting=0.0, running=1.0, kv_ratio=0.1)


@pytest.mark.parametrize(
    ("rest", "value"),
    [
        (" 4", 4.0),
        ("{} 4", 4.0),
        ("\t4", 4.0),
        (' {a="b"} 4', 4.0),
        ('{a="b",} 4', 4.0),
        (" 4 1395066363000", 4.0),
        ('{a="b"}  4.0\t1395066363000', 4.0),
        (" 4e0\r", 4.0),
        (" +4E+00", 4.0),
        ('{a="}",b="{",c="\\"} 9",d="\\\\"} 4', 4.0),
    ],
)
def test_ways_to_write_a_sample(rest: str, value: float) -> None:
    load = told(rest, " 1", " 0")
    assert load is not None
    assert load.waiting == value


@pytest.mark.parametrize(
    "rest", [" NaN", " +Inf", " -1", "", " ", " x", '{a="b" 4', ' {a="b"}', " 4 5 6", "4", "_sum 4"]
)
def test_what_is_no_number_of_requests_counts_as_not_there(rest: str) -> None:
    assert told(rest, " 1", " 0") is None
    assert told(" 1", rest, " 0") is None


@pytest.mark.parametrize("rest", [" NaN", "", " -0.1"])
def test_the_kv_cache_may_be_missing(rest: str) -> None:
    load = told(" 1", " 2", rest)
    assert load is not None
    assert (load.waiting, load.running) == (1.0, 2.0)
    assert math.isnan(load.kv_ratio)


def test_data_parallel_ranks_add_up_and_their_caches_are_averaged() -> None:
    lines = [
        f'{name}{{engine="{rank}",model_name="m"}} {value}'
        for name, values in zip(VLLM, ((1, 2), (3, 4), (0.25, 0.75)), strict=True)
        for rank, value in enumerate(values)
    ]
    assert engine_load(page(*lines)) == EngineLoad(waiting=3.0, running=7.0, kv_ratio=0.5)


def test_a_rank_that_says_nothing_is_left_out() -> None:
    lines = [f'{name}{{engine="{rank}"}} {rank or "NaN"}' for name in VLLM for rank in (0, 1)]
    assert engine_load(page(*lines)) == EngineLoad(waiting=1.0, running=1.0, kv_ratio=1.0)


def test_tensor_and_pipeline_ranks_tell_of_the_same_requests() -> None:
    lines = [
        f'{name}{{dp_rank="{dp}",tp_rank="{tp}",pp_rank="{pp}"}} {value}'
        for name, value in zip(SGLANG, (2, 5, 0.5), strict=True)
        for dp in (0, 1)
        for tp in (0, 1)
        for pp in (0, 1)
    ]
    assert engine_load(page(*lines)) == EngineLoad(waiting=4.0, running=10.0, kv_ratio=0.5)


def test_of_ranks_that_do_not_agree_the_largest_count_is_taken() -> None:
    lines = [
        f'{name}{{tp_rank="{rank}"}} {value}' for name in SGLANG for rank, value in ((0, 5), (1, 4))
    ]
    assert engine_load(page(*lines)) == EngineLoad(waiting=5.0, running=5.0, kv_ratio=4.5)


def test_counts_by_priority_are_not_added_to_the_total() -> None:
    lines = [
        f'{name}{{priority="{priority}",tp_rank="0"}} {value}'
        for name in SGLANG[:2]
        for priority, value in (("", 14), ("-1", 4), ("0", 10))
    ]
    assert engine_load(page(*lines, "sglang:token_usage 0.5")) == EngineLoad(14.0, 14.0, 0.5)
    without_total = [line for line in lines if 'priority=""' not in line]
    load = engine_load(page(*without_total))
    assert load is not None
    assert (load.waiting, load.running) == (14.0, 14.0)


@pytest.mark.parametrize("missing", [0, 1])
def test_half_a_load_is_none(missing: int) -> None:
    names = [name for number, name in enumerate(VLLM) if number != missing]
    assert engine_load(page(*(f"{name} 1" for name in names))) is None


def test_a_page_of_something_else_is_none() -> None:
    assert engine_load(b"") is None
    assert (
        engine_load(b"<html>vllm:num_requests_waiting 1 vllm:num_requests_running 1</html>") is None
    )


def test_a_page_may_begin_and_end_with_a_sample() -> None:
    written = b"vllm:num_requests_running 1\nvllm:num_requests_waiting 2"
    load = engine_load(written)
    assert load is not None
    assert (load.waiting, load.running) == (2.0, 1.0)


def test_the_simulated_model_server_is_understood() -> None:
    engine = Engine(EngineOptions())
    collector = EngineCollector(engine, "m", lambda: 0)
    written = generate_latest(collector.registry())
    assert engine_load(written) == EngineLoad(waiting=0.0, running=0.0, kv_ratio=0.0)


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_no_bytes_are_an_error(before: bytes, rest: bytes) -> None:
    lines = [name.encode() + rest for name in VLLM]
    engine_load(b"\n".join([before, *lines]))


_values = st.one_of(
    st.integers(0, 10_000).map(float), st.floats(0, 1e12), st.just(math.nan), st.just(math.inf)
)
_labels = st.tuples(st.text(max_size=8), st.sampled_from(["0", "1", "2"]))
_ranks = st.dictionaries(_labels, _values, min_size=1, max_size=4)


@ENGINES
@given(series=st.tuples(_ranks, _ranks, _ranks), more=_ranks, order=st.randoms())
def test_reads_what_prometheus_client_writes(
    names: tuple[str, str, str],
    series: tuple[dict[tuple[str, str], float], ...],
    more: dict[tuple[str, str], float],
    order: object,
) -> None:
    """Any ranks and label values, in any order, between metrics with similar names."""
    registry = CollectorRegistry()
    families = [*zip(names, series, strict=True), *((f"{name}_more", more) for name in names)]
    order.shuffle(families)  # type: ignore[attr-defined]
    for name, samples in families:
        gauge = Gauge(
            name, "Help: " + " ".join(names), ["model_name", "dp_rank"], registry=registry
        )
        for labels, value in samples.items():
            gauge.labels(*labels).set(value)
    load = engine_load(generate_latest(registry))
    found: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            if math.isfinite(sample.value):
                found.setdefault(sample.name, []).append(sample.value)
    waiting, running, kv_ratio = (found.get(name) for name in names)
    if waiting is None or running is None:
        assert load is None
        return
    assert load is not None
    assert load.waiting == pytest.approx(sum(waiting))
    assert load.running == pytest.approx(sum(running))
    if kv_ratio is None:
        assert math.isnan(load.kv_ratio)
    else:
        assert load.kv_ratio == pytest.approx(sum(kv_ratio) / len(kv_ratio))
