"""What ``epp serve`` can be told about scraping."""

import argparse

import pytest

from epp import serve
from epp.config.arguments import picker_config
from epp.config.scrape import ScrapeOptions


def options(*arguments: str) -> ScrapeOptions | None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    serve.add_parser(parser.add_subparsers())
    return picker_config(parser.parse_args(["serve", "--manifests", "m", *arguments])).scrape


def test_scraping_is_on_and_can_be_turned_off() -> None:
    assert options() == ScrapeOptions()
    assert options("--no-scrape") is None


def test_how_often_and_where() -> None:
    arguments = ("--metrics-scrape-interval", "0.5", "--metrics-scrape-path", "/v1/metrics")
    assert options(*arguments, "--metrics-scrape-scheme=https") == ScrapeOptions(
        interval_s=0.5,
        idle_interval_s=2.5,
        busy_interval_s=0.125,
        path="/v1/metrics",
        scheme="https",
    )


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        (
            "--metrics-scrape-interval=0",
            "argument --metrics-scrape-interval: '0' is less than 0.05",
        ),
        ("--metrics-scrape-interval=x", "'x' is not a number of seconds"),
        ("--metrics-scrape-path=metrics", "'metrics' is not a path that begins with /"),
        ("--metrics-scrape-path=/a b", "'/a b' is not a path"),
        ("--metrics-scrape-scheme=ftp", "invalid choice: 'ftp'"),
    ],
)
def test_what_is_refused(argument: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(argument)
    assert complaint in capsys.readouterr().err
