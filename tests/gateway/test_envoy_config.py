import argparse
import json

import pytest
import yaml

from epp.errors import UsageError
from epp.gateway import envoy_config, extra


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    envoy_config.add_parser(parser.add_subparsers())
    args = parser.parse_args(["envoy-config", *arguments])
    return int(args.run(args))


def test_yaml_with_comments(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--fail-open", "--listen", "[::]:80", "--ext-proc", "epp.default.svc:9002") == 0
    text = capsys.readouterr().out
    assert text.startswith("# Envoy's bootstrap")
    resources = yaml.safe_load(text)["static_resources"]
    address = resources["listeners"][0]["address"]["socket_address"]
    assert address == {"address": "::", "port_value": 80}
    assert [cluster["type"] for cluster in resources["clusters"]] == ["EDS", "STRICT_DNS"]
    assert "failure_mode_allow: true" in text
    assert "/var/run/epp/eds.json" in text


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--format", "json", "--response-body", "duplex", "--admin-port", "19000") == 0
    text = capsys.readouterr().out
    assert json.loads(text)["admin"]["address"]["socket_address"]["port_value"] == 19000
    assert '"response_body_mode": "FULL_DUPLEX_STREAMED"' in text
    assert "failure_mode_allow" not in text


def test_requests_on_one_connection_can_be_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--format", "json", "--connection-streams", "32") == 0
    assert '"max_concurrent_streams": 32' in capsys.readouterr().out
    assert run("--format", "json") == 0
    assert "max_concurrent_streams" not in capsys.readouterr().out


def test_replicas(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--format", "json", "--ext-proc", "10.0.0.1:1", "--ext-proc", "10.0.0.2:2") == 0
    text = capsys.readouterr().out
    assert '"address": "10.0.0.1"' in text
    assert '"address": "10.0.0.2"' in text


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--listen", "8080"),
        ("--listen", "0.0.0.0:0"),
        ("--listen", "localhost:80"),
        ("--listen", "::1:80"),
        ("--ext-proc", "[epp:9002"),
        ("--ext-proc", "epp:99999"),
        ("--ext-proc", ":9002"),
        ("--admin-port", "x"),
        ("--eds-file", "eds.json"),
        ("--connection-streams", "0"),
    ],
)
def test_what_cannot_work_is_refused(flag: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"^{flag}: expected "):
        run(flag, value)


def test_the_extra_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'inference-epp\[gateway\]'"):
        run()
