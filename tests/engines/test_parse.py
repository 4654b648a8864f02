"""From pages to loads: ways to write them, ranks, and what a page does not tell."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from epp.config.metric_spec import MetricSpec
from epp.config.scrape import Aggregation, AttributeMetric, EngineMap
from epp.core.pool import EngineLoad
from epp.engines import samples as samples_module
from epp.engines.parse import Dialects, PageReader

from .reading import DIALECTS, SGLANG, VLLM, engine_load, page, spec


def told(waiting: str, running: str, kv_ratio: str = "") -> EngineLoad:
    """Return the load of a vLLM page whose samples have these lines behind the names."""
    lines = [name + rest for name, rest in zip(VLLM, (waiting, running, kv_ratio), strict=True)]
    load = engine_load(page("# HELP vllm:num_requests_waiting 7", *lines, "end 1"))
    assert load is not None
    return load


# ---- ways to write it ----


@pytest.mark.parametrize(
    ("rest", "value"),
    [
        (" 4", 4.0),
        ("{} 4", 4.0),
        ("\t4", 4.0),
        (' {a="b"} 4', 4.0),
        ('{a="b",} 4', 4.0),
        ('{ a = "b" ,\tc = "d" }4', 4.0),
        (" 4 1395066363000", 4.0),
        ('{a="b"}  4.0\t-1', 4.0),
        (" 4e0\r", 4.0),
        (" +4E+00", 4.0),
        ("_total 4", 4.0),
        ('_total{a="b"} 4', 4.0),
        ('{a="}",b="{",c="\\"} 9",d="\\\\"} 4', 4.0),
    ],
)
def test_ways_to_write_a_sample(rest: str, value: float) -> None:
    assert told(rest, " 1", " 0").waiting == value


def test_a_name_without_total_goes_before_one_with_it() -> None:
    load = engine_load(page(f"{VLLM[0]}_total 7", f"{VLLM[0]} 3", f"{VLLM[1]} 1"))
    assert load is not None
    assert load.waiting == 3.0


@pytest.mark.parametrize(
    "rest",
    [" NaN", " +Inf", " -1", "", " ", " x", '{a="b" 4', ' {a="b"}', " 4 5 6", "4", "+4", "_sum 4",
     " 1_0", " 0x4", " 4 1.5", " 4 # 5", '{a="b",a="c"} 4', '{a=b} 4', '{"a"} 4', '{a="b"} 4 {b}',
     '{a="\ud800"} 4', "\x0b4", '{a="b"c="d"} 4', "{,} 4", '{1="b"} 4'],
)  # fmt: skip
def test_what_is_no_number_of_requests_is_not_told(rest: str) -> None:
    written = f"{VLLM[0]}{rest}\n{VLLM[1]} 1\n".encode("utf-8", "surrogatepass")
    load = engine_load(written)
    assert load is not None
    assert (math.isnan(load.waiting), load.running) == (True, 1.0)


def test_a_line_that_was_cut_off_is_not_read() -> None:
    whole = f"{VLLM[0]} 1\n{VLLM[1]} 234\n".encode()
    assert engine_load(whole) == EngineLoad(1.0, 234.0, math.nan)
    for cut in (1, 2, 3):
        assert engine_load(whole[:-cut]) == EngineLoad(1.0, math.nan, math.nan)


def test_a_page_may_begin_with_a_sample() -> None:
    assert told(" 2", " 1") == engine_load(page(f"{VLLM[1]} 1", f"{VLLM[0]} 2"))


@pytest.mark.parametrize("name", ["# HELP ", "#", "x", "x:", "_", '"'])
def test_what_only_has_the_name_in_it_is_another_metric(name: str) -> None:
    lines = [f"{name}{VLLM[0]} 7", f"{VLLM[0]}_by_reason 7", f"{VLLM[0]}:x 7", f"{VLLM[1]} 1"]
    assert engine_load(page(*lines)) == EngineLoad(math.nan, 1.0, math.nan)


def test_nothing_told_is_no_load() -> None:
    assert engine_load(b"") is None
    assert engine_load(b"<html>vllm:num_requests_waiting 1 vllm:num_requests_running 1") is None
    assert engine_load(page(f"{VLLM[2]} 0.5")) is None
    assert engine_load(page(f"{VLLM[0]} NaN", f"{VLLM[1]} -1")) is None


def test_a_page_of_nothing_but_samples_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f'{VLLM[0]}{{a="{number}"}} 1' for number in range(5)]
    monkeypatch.setattr(samples_module, "_MOST_SAMPLES", 5)
    assert engine_load(page(*lines)) is not None
    monkeypatch.setattr(samples_module, "_MOST_SAMPLES", 4)
    assert engine_load(page(*lines)) is None


# ---- ranks ----


def ranks(names: tuple[str, ...], label: str, *values: tuple[float, ...]) -> list[str]:
    return [
        f'{name}{{{label}="{rank}",model_name="m"}} {value}'
        for name, ranked in zip(names, values, strict=True)
        for rank, value in enumerate(ranked)
    ]


def test_data_parallel_ranks_add_up_and_their_caches_are_averaged() -> None:
    lines = ranks(VLLM, "engine", (1, 2), (3, 4), (0.25, 0.75))
    assert engine_load(page(*lines)) == EngineLoad(waiting=3.0, running=7.0, kv_ratio=0.5)
    scattered = page(*(line for pair in zip(lines[::2], lines[1::2], strict=True) for line in pair))
    apart = page(*lines[::2], *(f"other{number} 1" for number in range(9)), *lines[1::2])
    for written in (scattered, apart, page(*reversed(lines))):
        assert engine_load(written) == EngineLoad(waiting=3.0, running=7.0, kv_ratio=0.5)


def test_no_server_has_more_than_1024_ranks() -> None:
    lines = [f'{VLLM[0]}{{engine="{rank}"}} 1' for rank in range(1025)]
    assert engine_load(page(*lines[:-1], f"{VLLM[1]} 1")) == EngineLoad(1024.0, 1.0, math.nan)
    assert engine_load(page(*lines, f"{VLLM[1]} 1")) == EngineLoad(math.nan, 1.0, math.nan)


def test_with_one_rank_unknown_the_sum_is() -> None:
    lines = ranks(VLLM, "engine", (1, math.nan), (3, 4), (0.25, math.inf))
    assert engine_load(page(*lines)) == EngineLoad(math.nan, 7.0, math.nan)
    lines = [*ranks(VLLM, "engine", (1, 2), (3, 4), (0.25, 0.75)), f"{VLLM[1]}{{engine=2}} 5"]
    assert engine_load(page(*lines)) == EngineLoad(3.0, math.nan, 0.5)


def test_a_series_that_is_there_twice_counts_once_if_it_is_the_same() -> None:
    lines = ranks(VLLM, "engine", (1, 2), (3, 4), (0.25, 0.75))
    assert engine_load(page(*lines, lines[0])) == EngineLoad(3.0, 7.0, 0.5)
    another = f'{VLLM[0]}{{model_name="m",engine="0"}} 9'
    assert engine_load(page(*lines, another)) == EngineLoad(math.nan, 7.0, 0.5)


def test_tensor_and_pipeline_ranks_tell_of_the_same_requests() -> None:
    lines = [
        f'{name}{{dp_rank="{dp}",tp_rank="{tp}",pp_rank="{pp}",moe_ep_rank="{tp}"}} {value}'
        for name, value in zip(SGLANG, (2, 5, 0.5), strict=True)
        for dp in (0, 1)
        for tp in (0, 1)
        for pp in (0, 1)
    ]
    assert engine_load(page(*lines)) == EngineLoad(waiting=4.0, running=10.0, kv_ratio=0.5)


def test_of_copies_that_do_not_agree_the_largest_is_taken() -> None:
    lines = ranks(SGLANG, "tp_rank", (5, 4), (6, 7), (0.25, 0.5))
    assert engine_load(page(*lines)) == EngineLoad(waiting=5.0, running=7.0, kv_ratio=0.5)


def test_counts_by_priority_are_not_added_to_the_total() -> None:
    lines = [
        f'{name}{{priority="{priority}",tp_rank="0"}} {value}'
        for name in SGLANG[:2]
        for priority, value in (("", 15), ("-1", 4), ("0", 10))
    ]
    assert engine_load(page(*lines, f"{SGLANG[2]} 0.5")) == EngineLoad(15.0, 15.0, 0.5)
    without_total = [line for line in lines if 'priority=""' not in line]
    assert engine_load(page(*without_total)) == EngineLoad(14.0, 14.0, math.nan)


# ---- what else is told ----


@pytest.mark.parametrize(
    ("shares", "share"),
    [((1.005, 0.005), 0.505), ((1.005,), 1.0), ((1.02,), math.nan), ((1.9, 0.1), math.nan)],
)
def test_a_share_is_at_most_1(shares: tuple[float, ...], share: float) -> None:
    lines = ranks(VLLM, "engine", (1,), (1,), shares)
    load = engine_load(page(*lines))
    assert load is not None
    assert load.kv_ratio == pytest.approx(share, nan_ok=True)


@pytest.mark.parametrize(
    ("infos", "sizes"),
    [
        ([{"block_size": "16", "num_gpu_blocks": "7"}], (16, 7)),
        ([{"block_size": "16", "num_gpu_blocks": "None"}], (16, 0)),
        ([{"num_gpu_blocks": "7"}], (0, 7)),
        ([{"block_size": "0", "num_gpu_blocks": "-7"}], (0, 0)),
        ([{"block_size": "1048577", "num_gpu_blocks": "9" * 16}], (0, 0)),
        ([{"block_size": "16", "num_gpu_blocks": "7"}] * 2, (16, 7)),
        ([{"block_size": "16", "num_gpu_blocks": "7", "engine": e} for e in "01"], (16, 14)),
        ([{"block_size": "16", "num_gpu_blocks": "7", "tp_rank": r} for r in "01"], (16, 7)),
        ([{"block_size": s, "num_gpu_blocks": "7"} for s in ("16", "32")], (0, 14)),
        ([{"block_size": "16", "num_gpu_blocks": b} for b in ("7", "None")], (16, 0)),
    ],
)
def test_the_blocks_of_the_cache(infos: list[Mapping[str, str]], sizes: tuple[int, int]) -> None:
    lines = [
        "vllm:cache_config_info{"
        + ",".join(f'{name}="{value}"' for name, value in info.items())
        + "} 1"
        for info in infos
    ]
    load = engine_load(page(*lines, *ranks(VLLM, "engine", (1,), (1,), (0.5,))))
    assert load is not None
    assert (load.block_tokens, load.cache_blocks) == sizes


@pytest.mark.parametrize(("value", "size"), [("32", 32), ("0", 0), ("32.5", 0), ("1e300", 0)])
def test_the_size_of_a_block_as_a_value(value: str, size: int) -> None:
    lines = ("trtllm_num_requests_waiting 1", "trtllm_num_requests_running 1")
    load = engine_load(page(*lines, f"trtllm_kv_cache_tokens_per_block {value}"))
    assert load is not None
    assert load.block_tokens == size


LORA = "vllm:lora_requests_info"


@pytest.mark.parametrize(
    ("series", "adapters"),
    [
        (['{max_lora="2",running_lora_adapters="a , b,,"} 1'], ({"a", "b"}, set(), 2)),
        (['{waiting_lora_adapters="a"} 1'], (set(), {"a"}, 0)),
        (['{running_lora_adapters="a"} 1', '{running_lora_adapters="b"} 2'], ({"b"}, set(), 0)),
        (['{running_lora_adapters="a"} 2'] * 2, ({"a"}, set(), 0)),
        (['{running_lora_adapters="a"} 2', '{running_lora_adapters="b"} 2'], (set(), set(), 0)),
        (['{running_lora_adapters="a"} 2', '{running_lora_adapters="b"} x'], (set(), set(), 0)),
        (['{running_lora_adapters="a"} 2', '{running_lora_adapters="b} 1'], (set(), set(), 0)),
        (
            ['{running_lora_adapters="a"} 2', '{running_lora_adapters="\udcff"} 1'],
            (set(), set(), 0),
        ),
        (['{running_lora_adapters="a\\\\n\\"\\n"} 1'], ({'a\\n"'}, set(), 0)),
        (
            ['{running_lora_adapters="' + ",".join(map(str, range(4097))) + '"} 1'],
            (set(), set(), 0),
        ),
        (['{x="' + "y" * (1 << 18) + '",running_lora_adapters="a"} 1'], (set(), set(), 0)),
        (['{max_lora="many",running_lora_adapters="a"} 1'], ({"a"}, set(), 0)),
    ],
)
def test_adapters_are_those_of_the_newest_series(
    series: list[str], adapters: tuple[set[str], set[str], int]
) -> None:
    lines = [f"{LORA}{each}" for each in series]
    load = engine_load(page(*lines, *ranks(VLLM, "engine", (1,), (1,), (0.5,))))
    assert load is not None
    told = set(load.active_adapters), set(load.waiting_adapters), load.max_adapters
    assert told == adapters


def test_the_newest_series_changes_from_page_to_page() -> None:
    """Also where the page is large, and not searched as a whole again."""
    filling = [f"filling_number_{number} 1" for number in range(1000)]

    def at(first: int, second: int) -> bytes:
        lines = ranks(VLLM, "engine", (1,), (1,), (0.5,))
        for adapter, value in (("a", first), ("b", second)):
            lines.append(f'{LORA}{{running_lora_adapters="{adapter}"}} {value}')
        return page(*filling, *lines)

    reader = PageReader(DIALECTS)
    for first, second, running in ((1, 2, "b"), (3, 2, "a"), (3, 4, "b"), (4, 4, "")):
        load = reader.read(at(first, second))
        assert load is not None
        assert load.active_adapters == frozenset(running)


def test_the_process_began_when_the_youngest_of_several_did() -> None:
    lines = ranks(VLLM, "engine", (1,), (1,), (0.5,))
    started = [f'process_start_time_seconds{{part="{n}"}} {1.7e9 + n}' for n in (2, 3, 1)]
    load = engine_load(page(*lines, *started))
    assert load is not None
    assert load.started_s == 1.7e9 + 3


def test_loads_that_tell_the_same_are_equal_even_where_they_tell_nothing() -> None:
    """Whether reports are frozen goes by that."""
    written = page(f"{VLLM[0]} NaN", f"{VLLM[1]} 1")
    assert engine_load(written) == engine_load(written)
    assert engine_load(page(f"{VLLM[0]} 1e308", f'{VLLM[0]}{{a="b"}} 1e308', f"{VLLM[1]} 1")) == (
        EngineLoad(math.nan, 1.0, math.nan)
    )


@pytest.mark.parametrize("aggregation", ["sum", "mean", "max"])
def test_attributes_that_are_not_told_are_not_there(aggregation: Aggregation) -> None:
    attribute = AttributeMetric(attribute="a", metric=MetricSpec("number"), aggregation=aggregation)
    mine = EngineMap(name="mine", waiting=spec("queue"), attributes=(attribute,))
    for rest in ("", "number NaN\n", 'number{a="1"} 1\nnumber{a="2"} x\n'):
        load = PageReader(Dialects([mine])).read(b"queue 1\n" + rest.encode())
        assert load is not None
        assert load.attributes == {}


# ---- and in general ----


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_no_bytes_are_an_error(before: bytes, rest: bytes) -> None:
    lines = [name.encode() + rest for name in VLLM]
    engine_load(b"\n".join([before, *lines]))


_values = st.one_of(st.integers(0, 10_000).map(float), st.floats(0, 1e12), st.just(math.nan))
_labels = st.tuples(st.text(max_size=8), st.sampled_from(["0", "1", "2"]))
_ranks = st.dictionaries(_labels, _values, min_size=1, max_size=4)


@pytest.mark.parametrize("names", [VLLM, SGLANG])
@settings(max_examples=50)
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
    found: dict[str, list[float]] = {name: [] for name in names}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.value)
    waiting, running, shares = (found[name] for name in names)
    if math.isnan(sum(waiting)) and math.isnan(sum(running)):
        assert load is None
        return
    assert load is not None
    assert load.waiting == pytest.approx(sum(waiting), nan_ok=True)
    assert load.running == pytest.approx(sum(running), nan_ok=True)
    share = math.nan if max(shares) > 1.01 else min(sum(shares) / len(shares), 1.0)
    assert load.kv_ratio == pytest.approx(share, nan_ok=True)
