"""Pages of every dialect with something wrong: no error, and no number that they do not tell."""

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from epp.core.pool import EngineLoad
from epp.engines import places
from epp.engines.parse import Dialects, PageReader

from .dialect_pages import CASES, Case
from .slow_reader import Read, samples_of

MUTANTS = 200
DIALECTS = Dialects()
EVERY_DIALECT = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

Spec = tuple[str, Mapping[str, str]]
Samples = Callable[[str], Sequence[Read]]
_TRT_REQUESTS = "nv_trt_llm_request_metrics"
_TRT_CACHE = "nv_trt_llm_kv_cache_block_metrics"


class Names(msgspec.Struct, frozen=True):
    """Where one engine tells what, by its own documentation."""

    waiting: Spec
    running: Spec | None = None
    kv_ratio: tuple[Spec, ...] = ()
    cache_info: str = ""
    cache_labels: tuple[str, str] = ("block_size", "num_gpu_blocks")
    cache_gauges: tuple[Spec, ...] = ()


NAMES = {
    "vllm": Names(
        ("vllm:num_requests_waiting", {}),
        ("vllm:num_requests_running", {}),
        (("vllm:kv_cache_usage_perc", {}), ("vllm:gpu_cache_usage_perc", {})),
        "vllm:cache_config_info",
    ),
    "sglang": Names(
        ("sglang:num_queue_reqs", {}),
        ("sglang:num_running_reqs", {}),
        (("sglang:token_usage", {}),),
        "sglang:cache_config_info",
        ("page_size", "num_pages"),
    ),
    "trtllm-serve": Names(
        ("trtllm_num_requests_waiting", {}),
        ("trtllm_num_requests_running", {}),
        (("trtllm_kv_cache_utilization", {}),),
        cache_gauges=(
            ("trtllm_kv_cache_tokens_per_block", {}),
            ("trtllm_kv_cache_max_blocks", {}),
        ),
    ),
    "triton-tensorrt-llm": Names(
        (_TRT_REQUESTS, {"request_type": "waiting"}),
        (_TRT_REQUESTS, {"request_type": "scheduled"}),
        ((_TRT_CACHE, {"kv_cache_block_type": "fraction"}),),
        cache_gauges=(
            (_TRT_CACHE, {"kv_cache_block_type": "tokens_per"}),
            (_TRT_CACHE, {"kv_cache_block_type": "max"}),
        ),
    ),
    "triton": Names(("nv_inference_pending_request_count", {})),
    "llamacpp": Names(
        ("llamacpp:requests_deferred", {}),
        ("llamacpp:requests_processing", {}),
        (("llamacpp:kv_cache_usage_ratio", {}),),
    ),
}


# ---- what a page tells, slowly ----


def ranks(rows: Iterable[Read]) -> list[float]:
    """Return the value of each rank; none where a line, or what it says, is not sound."""
    by_series: dict[frozenset[tuple[str, str]], set[float]] = {}
    for row in rows:
        if row.labels is None:
            return []
        by_series.setdefault(row.labels, set()).add(row.value)
    if any(len(values) > 1 for values in by_series.values()):
        return []
    is_part = {labels: bool(dict(labels).get("priority")) for labels in by_series}
    by_rank: dict[frozenset[tuple[str, str]], float] = {}
    for labels, (value,) in by_series.items():
        if is_part[labels] and not all(is_part.values()):
            continue
        if not 0 <= value < math.inf:
            return []
        copies = ("tp_rank", "pp_rank", "moe_ep_rank")
        rank = frozenset(item for item in labels if item[0] not in copies)
        by_rank[rank] = max(by_rank.get(rank, 0.0), value)
    return list(by_rank.values())


def matching(samples: Samples, spec: Spec) -> list[Read]:
    name, labels = spec
    return [row for row in samples(name) if row.labels is None or labels.items() <= set(row.labels)]


def total(samples: Samples, spec: Spec | None) -> float:
    values = ranks(matching(samples, spec)) if spec else []
    return sum(values) if values else math.nan


def share(samples: Samples, specs: Iterable[Spec]) -> float:
    found = next(filter(None, (matching(samples, spec) for spec in specs)), [])
    values = ranks(found)
    if not values or max(values) > 1.01:
        return math.nan
    return min(1.0, sum(values) / len(values))


def whole(value: float) -> int:
    return int(value) if 1 <= value < 1e12 and value == int(value) else 0


def cache(samples: Samples, names: Names) -> tuple[int, int]:
    if names.cache_gauges:
        size, count = (ranks(matching(samples, spec)) for spec in names.cache_gauges)
        return whole(size[0] if len(set(size)) == 1 else 0), whole(sum(count))
    rows = samples(names.cache_info) if names.cache_info else []
    numbers: list[list[float]] = []
    for label in names.cache_labels:
        told = [
            row._replace(value=float(digits) if digits.isdecimal() else math.nan)
            if row.labels is not None and 0 <= row.value < math.inf
            else row
            for row in rows
            for digits in [dict(row.labels or ()).get(label, "")]
        ]
        numbers.append(ranks(told))
    sizes = set(numbers[0])
    return whole(sizes.pop() if len(sizes) == 1 else 0), whole(sum(numbers[1]))


def adapters(samples: Samples) -> tuple[frozenset[str], frozenset[str], int]:
    rows = samples("vllm:lora_requests_info")
    newest = max((row.value for row in rows), default=0.0)
    told = {row.labels for row in rows if row.value == newest}
    if len(told) != 1 or any(not 0 <= row.value < math.inf for row in rows):
        return frozenset(), frozenset(), 0
    labels = dict(told.pop() or ())
    most = labels.get("max_lora", "")
    running, waiting = (
        frozenset(part.strip() for part in labels.get(name, "").split(",") if part.strip())
        for name in ("running_lora_adapters", "waiting_lora_adapters")
    )
    return running, waiting, int(most) if most.isdecimal() else 0


def base_models(samples: Samples, names: Names) -> frozenset[str]:
    rows = matching(samples, names.running) if names.running else []
    found = (dict(row.labels).get("model_name", "") for row in rows if row.labels is not None)
    return frozenset(filter(None, found))


def slowly(samples: Samples, engine: str) -> EngineLoad | None:
    names = NAMES[engine]
    waiting, running = total(samples, names.waiting), total(samples, names.running)
    if math.isnan(waiting) and math.isnan(running):
        return None
    started = ranks(samples("process_start_time_seconds"))
    active, queued, most = adapters(samples) if engine == "vllm" else (frozenset(), frozenset(), 0)
    block_tokens, cache_blocks = cache(samples, names)
    attributes = {
        attribute: sum(values)
        for attribute, name in (
            ("prefix-cache-queried-tokens", "vllm:prefix_cache_queries"),
            ("prefix-cache-hit-tokens", "vllm:prefix_cache_hits"),
        )
        if engine == "vllm" and (values := ranks(samples(name)))
    }
    return EngineLoad(
        waiting=waiting,
        running=running,
        kv_ratio=share(samples, names.kv_ratio),
        active_adapters=active,
        waiting_adapters=queued,
        max_adapters=most,
        base_models=base_models(samples, names) if most else frozenset(),
        block_tokens=block_tokens,
        cache_blocks=cache_blocks,
        started_s=max(started, default=math.nan),
        attributes=attributes,
    )


# ---- what can be wrong ----

VALUES = (b"NaN", b"+Inf", b"-1", b"", b"1e2", b"0x1p4", b"1_0", b"7 8 9", b"3 1395066363000",
          b"\xff", b"2.5", b"1e400", b"0", b".5", b"1.005", b"3\x0b", b"5#6", b"+2")  # fmt: skip
GARBAGE = b'{}",=\\ \t\r\n_x0#\x00\xc3'


def mutants(page: bytes, metrics: Iterable[str], seed: int) -> Iterable[bytes]:
    rng = random.Random(seed)
    wanted = [name.encode() for name in metrics]
    for _ in range(MUTANTS):
        lines = page.split(b"\n")
        for _ in range(rng.choice((1, 1, 2, 4))):
            told = [n for n, line in enumerate(lines) if line.startswith(tuple(wanted))]
            number = rng.choice(told) if told and rng.random() < 0.8 else rng.randrange(len(lines))
            rng.choice(MUTATIONS)(lines, number, rng)
        yield b"\n".join(lines)


def truncate(lines: list[bytes], number: int, rng: random.Random) -> None:
    lines[number:] = [lines[number][: rng.randrange(len(lines[number]) + 1)]]


def cut(lines: list[bytes], number: int, rng: random.Random) -> None:
    line = lines[number]
    begin = rng.randrange(len(line) + 1)
    lines[number] = line[:begin] + line[begin + rng.randrange(4) :]


def insert(lines: list[bytes], number: int, rng: random.Random) -> None:
    line = lines[number]
    at = rng.randrange(len(line) + 1)
    lines[number] = line[:at] + bytes(rng.choices(GARBAGE, k=rng.randrange(1, 4))) + line[at:]


def change_value(lines: list[bytes], number: int, rng: random.Random) -> None:
    lines[number] = lines[number].rpartition(b" ")[0] + b" " + rng.choice(VALUES)


def double(lines: list[bytes], number: int, rng: random.Random) -> None:
    lines.insert(rng.randrange(len(lines)), lines[number])


def double_with_another_value(lines: list[bytes], number: int, rng: random.Random) -> None:
    double(lines, number, rng)
    change_value(lines, number, rng)


def another_rank(lines: list[bytes], number: int, rng: random.Random) -> None:
    labels = rng.choice((b'{dp_rank="9",', b'{tp_rank="9",', b'{priority="9",', b"{9,", b"{"))
    lines.insert(rng.randrange(len(lines)), lines[number].replace(b"{", labels))


def swap_lines(lines: list[bytes], number: int, rng: random.Random) -> None:
    other = rng.randrange(len(lines))
    lines[number], lines[other] = lines[other], lines[number]


def swap_labels(lines: list[bytes], number: int, rng: random.Random) -> None:
    head, brace, rest = lines[number].partition(b"{")
    inner, closing, value = rest.rpartition(b"}")
    pairs = inner.split(b'",')
    rng.shuffle(pairs)
    lines[number] = head + brace + b'",'.join(pairs) + closing + value


def swap_a_label_with_another_line(lines: list[bytes], number: int, rng: random.Random) -> None:
    other = rng.randrange(len(lines))
    parts, others = lines[number].split(b'"'), lines[other].split(b'"')
    if len(parts) > 1 and len(others) > 1:
        parts[1], others[1] = others[1], parts[1]
        lines[number], lines[other] = b'"'.join(parts), b'"'.join(others)


def lose(lines: list[bytes], number: int, rng: random.Random) -> None:
    del lines[number]
    lines.extend([] if lines else [b""])


def join(lines: list[bytes], number: int, rng: random.Random) -> None:
    lines[number : number + 2] = [b"".join(lines[number : number + 2])]


def add_blanks(lines: list[bytes], number: int, rng: random.Random) -> None:
    line = lines[number].replace(b",", b" ,\t").replace(b"=", b" = ").replace(b"{", b" { ")
    lines[number] = rng.choice((b"", b" ", b"\t ")) + line + rng.choice((b" ", b"\t", b"\r"))


def end_lines_as_windows_does(lines: list[bytes], number: int, rng: random.Random) -> None:
    lines[:] = [line + b"\r" for line in lines]


def add_total(lines: list[bytes], number: int, rng: random.Random) -> None:
    name, brace, rest = lines[number].partition(b"{")
    lines[number] = name + rng.choice((b"_total", b"_created", b"_", b":")) + brace + rest


MUTATIONS = (truncate, cut, insert, change_value, double, double_with_another_value, another_rank,
             swap_lines, swap_labels, swap_a_label_with_another_line, lose, join, add_blanks,
             end_lines_as_windows_does, add_total)  # fmt: skip


def metrics_of(engine: str) -> list[str]:
    names = NAMES[engine]
    specs = [names.waiting, names.running, *names.kv_ratio, *names.cache_gauges]
    told = [spec[0] for spec in specs if spec]
    if engine == "vllm":
        told += ["vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:lora_requests_info"]
    return [*told, names.cache_info, "process_start_time_seconds"] if names.cache_info else told


# ---- and that it does no harm ----


@EVERY_DIALECT
def test_a_sound_page_tells_what_the_slow_reader_says(case: Case) -> None:
    assert slowly(partial(samples_of, case.page), case.engine) == case.load


def same(one: EngineLoad | None, other: EngineLoad | None) -> bool:
    if one is None or other is None:
        return one is other
    pairs = zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)
    return all(
        a == b or (isinstance(a, float) and a == pytest.approx(b, rel=1e-12, nan_ok=True))
        for a, b in pairs
    )


@EVERY_DIALECT
def test_200_mutants_tell_what_the_slow_reader_says_or_nothing(case: Case) -> None:
    told = 0
    for mutant in mutants(case.page, metrics_of(case.engine), seed=1):
        load = PageReader(DIALECTS).read(mutant, case.engine)
        assert same(load, slowly(partial(samples_of, mutant), case.engine)), mutant
        PageReader(DIALECTS).read(mutant)
        told += load is not None and load.waiting == case.load.waiting
    assert told > MUTANTS / 10  # they are not all broken beyond use


@EVERY_DIALECT
def test_mutants_read_after_the_sound_page(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learnt from a page before does not make another one be misread."""
    is_large = len(case.page) >= places._LEAST_BYTES
    for mutant in mutants(case.page, metrics_of(case.engine), seed=2):
        reader = PageReader(DIALECTS)
        assert reader.read(case.page) == case.load
        load = reader.read(mutant, case.engine)
        assert same(load, slowly(partial(samples_of, mutant), case.engine)), mutant
    assert is_large == (case.name == "vllm, large")


def test_the_slow_reader_reads_what_prometheus_does() -> None:
    """Where prometheus_client takes a page at all, no number differs from what it reads."""
    accepted = 0
    for case in CASES:
        if len(case.page) > 10_000:
            continue
        for mutant in mutants(case.page, metrics_of(case.engine), seed=3):
            try:
                families = list(text_string_to_metric_families(mutant.decode()))
            except ValueError:
                continue
            accepted += 1
            load = PageReader(DIALECTS).read(mutant, case.engine)
            reading = slowly(partial(accepted_samples, families), case.engine)
            assert is_part_of(load, reading), mutant
    assert accepted > 3 * MUTANTS


def accepted_samples(families: Iterable[Metric], name: str) -> list[Read]:
    for wanted in (name, f"{name}_total"):
        found = [
            Read(wanted, frozenset(sample.labels.items()), sample.value)
            for family in families
            for sample in family.samples
            if sample.name == wanted
        ]
        if found:
            return found
    return []


def is_part_of(load: EngineLoad | None, reading: EngineLoad | None) -> bool:
    """Tell whether a load says nothing that the reading does not."""
    if load is None:
        return True
    if reading is None:
        return False
    for told, read in zip(
        msgspec.structs.astuple(load), msgspec.structs.astuple(reading), strict=True
    ):
        if isinstance(told, dict):
            if not told.items() <= read.items():
                return False
        elif isinstance(told, frozenset):
            if told and told != read:
                return False
        elif told and not math.isnan(told) and told != pytest.approx(read):
            return False
    return True
