"""What is counted of rewritten models."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from epp.core.request import FlowKey, Outcome, Request
from epp.observability.metrics import Metrics
from epp.observability.rewrites import SKIP_REASONS, RewriteMetrics

_FLOW = FlowKey(0, "t")


def _request(model: str, client_model: str = "") -> Request:
    return Request(flow=_FLOW, model=model, client_model=client_model)


def _page(metrics: RewriteMetrics) -> list[str]:
    registry = CollectorRegistry()
    registry.register(metrics)
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_requests_are_counted_by_target_if_that_is_not_what_the_client_named() -> None:
    metrics = Metrics()
    for request in (_request("target", "alias"), _request("target", "other"), _request("plain")):
        metrics.recorder("p").wait_ended(request, Outcome.DISPATCHED, 0.0)
    metrics.recorder("p").wait_ended(_request("target", "alias"), Outcome.EXPIRED, 0.0)
    page = metrics.render().decode()
    name = "llm_d_epp_model_rewrites_total"
    assert [line for line in page.splitlines() if line.startswith(name)] == [
        f'{name}{{target_model_name="target"}} 2.0'
    ]
    labels = 'fairness_id="t",model_name="alias",priority="0",target_model_name="target"'
    assert f"llm_d_epp_request_total{{{labels}}} 1.0" in page.splitlines()


def test_targets_are_bounded() -> None:
    metrics = RewriteMetrics()
    for number in range(1_500):
        metrics.dispatched(_request(f"target-{number}", "alias"))
    metrics.dispatched(_request("target-0", "alias"))
    lines = [line for line in _page(metrics) if "rewrites_total" in line]
    assert len(lines) == 1_001
    assert 'llm_d_epp_model_rewrites_total{target_model_name="target-0"} 2.0' in lines
    assert 'llm_d_epp_model_rewrites_total{target_model_name="other"} 500.0' in lines


@pytest.mark.parametrize("reason", SKIP_REASONS)
def test_what_was_not_rewritten_is_counted_by_reason(reason: str) -> None:
    metrics = Metrics()
    metrics.recorder("p").rewrite_skipped(reason)
    page = metrics.render().decode().splitlines()
    for each in SKIP_REASONS:
        count = float(each == reason)
        assert f'llm_d_epp_model_rewrites_skipped_total{{reason="{each}"}} {count}' in page
