import io

from epp.simulation import progress
from epp.simulation.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar_that_is_removed_at_the_end() -> None:
    stream = Terminal()
    bar = Progress(stream, runs=2)
    bar.begin("first")
    assert stream.getvalue().endswith(f"[{'.' * 30}]   0%  first")
    bar.end(1000)
    assert stream.getvalue().endswith(f"[{'#' * 15}{'.' * 15}]  50%  first")
    bar.close()
    assert stream.getvalue().endswith("\r\x1b[K")
    assert "\n" not in stream.getvalue()


def test_the_bar_is_not_drawn_more_often_than_can_be_seen() -> None:
    stream, now = Terminal(), 100.0
    clock = progress.time.monotonic
    try:
        progress.time.monotonic = lambda: now
        bar = Progress(stream, runs=1)
        bar.begin("run")
        drawn = stream.getvalue()
        bar.at(0.5)
        assert stream.getvalue() == drawn
        now += 0.2
        bar.at(0.5)
        assert stream.getvalue().endswith(" 50%  run")
    finally:
        progress.time.monotonic = clock


def test_elsewhere_there_is_a_line_for_each_run() -> None:
    stream = io.StringIO()
    lines = Progress(stream, runs=2)
    for title in ("first", "second"):
        lines.begin(title)
        lines.at(0.5)
        lines.end(12_345)
    lines.close()
    first, second = stream.getvalue().splitlines()
    assert first.startswith("1 of 2: first: 12,345 requests in ")
    assert second.startswith("2 of 2: second: 12,345 requests in ")
