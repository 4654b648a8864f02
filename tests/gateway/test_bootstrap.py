import json
import subprocess
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from epp.gateway.bootstrap import bootstrap, to_dict, to_json, to_yaml
from epp.gateway.envoy_binary import find_envoy
from epp.gateway.options import BodyMode, GatewayOptions
from epp.proxy.eds import write_eds

MODES: tuple[BodyMode, ...] = get_args(BodyMode)


def options(eds_path: str = "/run/eds.json", **choices: Any) -> GatewayOptions:
    return GatewayOptions(eds_path=eds_path, **choices)


def ext_proc_filter(choices: GatewayOptions) -> dict[str, Any]:
    listener = to_dict(bootstrap(choices))["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    found = [
        entry["typed_config"]
        for entry in manager["http_filters"]
        if entry["name"] == "envoy.filters.http.ext_proc"
    ]
    (config,) = found
    assert isinstance(config, dict)
    return config


def accepted_by_envoy(tmp_path: Path, choices: dict[str, Any], form: str) -> None:
    eds_path = tmp_path / "eds.json"
    write_eds(eds_path, [])
    message = bootstrap(options(str(eds_path), **choices))
    config = tmp_path / f"envoy.{form}"
    config.write_text(to_json(message) if form == "json" else to_yaml(message))
    command = [str(find_envoy(None)), "--mode", "validate", "-c", str(config), "-l", "warning"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    # Warnings are about deprecated fields and the like.
    assert "[warning]" not in answer.stderr


EVERYTHING: dict[str, dict[str, Any]] = {
    "defaults": {},
    "fail close": {"fail_open": False},
    "without ext_proc": {"ext_proc_enabled": False},
    "without admin": {"admin_port": None},
    "IPv6": {"listen_address": "::1", "ext_proc_address": "::1"},
    "EPP by name": {"ext_proc_address": "epp.example.com", "ext_proc_health_check": False},
    "replicas": {"fail_open": False, "ext_proc_replicas": (("10.0.0.2", 9002), ("::1", 9002))},
    "the rest": {
        "static_subset_hint": ("10.0.0.1:80", "[::1]:80"),
        "subset_hint_header": "x-subset",
        "strip_destination": False,
        "buffer_limit_bytes": 32 << 20,
        "max_message_timeout_s": 10,
        "message_timeout_s": 0.2,
    },
    **{
        f"request {request}, response {response}": {
            "request_body_mode": request,
            "response_body_mode": response,
            # Full duplex demands the trailers; the other modes are tried without.
            "request_trailer_mode": "SEND" if request == "FULL_DUPLEX_STREAMED" else "SKIP",
            "response_trailer_mode": "SEND" if response == "FULL_DUPLEX_STREAMED" else "SKIP",
        }
        for request, response in zip_longest(MODES, reversed(MODES))
    },
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_envoy_accepts_it(tmp_path: Path, name: str) -> None:
    accepted_by_envoy(tmp_path, EVERYTHING[name], "yaml")


def test_envoy_accepts_json(tmp_path: Path) -> None:
    accepted_by_envoy(tmp_path, {}, "json")


@pytest.mark.parametrize("choices", EVERYTHING.values(), ids=EVERYTHING.keys())
def test_both_texts_mean_the_message(choices: dict[str, Any]) -> None:
    message = bootstrap(options(**choices))
    assert type(message).from_dict(json.loads(to_json(message))) == message
    assert type(message).from_dict(yaml.safe_load(to_yaml(message))) == message


def test_the_processing_mode() -> None:
    assert ext_proc_filter(options())["processing_mode"] == {
        "request_header_mode": "SEND",
        "response_header_mode": "SEND",
        "request_body_mode": "FULL_DUPLEX_STREAMED",
        "request_trailer_mode": "SEND",
        "response_trailer_mode": "SEND",
    }


def test_the_failure_mode() -> None:
    assert ext_proc_filter(options(fail_open=True))["failure_mode_allow"] is True
    closed = ext_proc_filter(options(fail_open=False))
    assert "failure_mode_allow" not in closed
    assert closed["status_on_error"] == {"code": "ServiceUnavailable"}


def test_health_checks_come_with_fail_open_unless_chosen() -> None:
    def is_checked(**choices: Any) -> bool:
        clusters = to_dict(bootstrap(options(**choices)))["static_resources"]["clusters"]
        return "health_checks" in clusters[1]

    assert is_checked(fail_open=True)
    assert not is_checked(fail_open=False)
    assert is_checked(fail_open=False, ext_proc_health_check=True)
    assert not is_checked(fail_open=True, ext_proc_health_check=False)
    replicas = (("10.0.0.2", 9002),)
    assert is_checked(fail_open=False, ext_proc_replicas=replicas)


def test_replicas_are_watched_for_their_death() -> None:
    """The health check takes long to find out that a machine does not answer any more."""

    def cluster(*replicas: tuple[str, int]) -> dict[str, Any]:
        message = to_dict(bootstrap(options(ext_proc_replicas=replicas)))
        found: dict[str, Any] = message["static_resources"]["clusters"][1]
        return found

    one = cluster()
    assert "outlier_detection" not in one
    assert "update_merge_window" not in one["common_lb_config"]
    two = cluster(("epp.example.com", 9003))
    assert two["common_lb_config"]["healthy_panic_threshold"]["value"] == 1
    assert two["common_lb_config"]["update_merge_window"] == "0s"
    assert two["outlier_detection"]["consecutive_local_origin_failure"] == 2
    assert two["type"] == "STRICT_DNS"
    hosts = two["load_assignment"]["endpoints"][0]["lb_endpoints"]
    ports = [host["endpoint"]["address"]["socket_address"]["port_value"] for host in hosts]
    assert ports == [9002, 9003]
