"""Metrics: each named once, documented, and findable without a label look-up on hot paths."""

from __future__ import annotations

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from config import metrics


def named() -> dict[str, MetricWrapperBase]:
    return {name: value for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)}


def test_every_metric_is_documented_and_ours_by_name() -> None:
    assert len(named()) >= 20
    for metric in named().values():
        [family] = metric.describe()
        assert family.name.startswith("expendi_")
        assert family.documentation.endswith(".")


def test_the_children_of_a_chain_are_found_once_and_count_on_the_labelled_metric() -> None:
    chain = metrics.of_chain(987654321)
    assert metrics.of_chain(987654321) is chain
    chain.events_ingested.inc(3)
    assert REGISTRY.get_sample_value("expendi_events_ingested_total", {"chain": "987654321"}) == 3


def test_head_cursor_and_lag_agree() -> None:
    metrics.of_chain(987654322).seen(10, cursor=7)
    labels = {"chain": "987654322"}
    assert REGISTRY.get_sample_value("expendi_chain_lag_blocks", labels) == 3
    metrics.of_chain(987654322).seen(10, cursor=11)
    assert REGISTRY.get_sample_value("expendi_chain_lag_blocks", labels) == 0
