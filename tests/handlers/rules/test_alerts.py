from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from handlers.rules.alerts import OVER, REARM_POINTS, Crossing, Edge, Level, crossing, rearmed, undone

START = datetime(2026, 11, 1, tzinfo=UTC)
THRESHOLDS = (50, 80, 100)


def level(spent: int, budget: int = 100, *, projected: int = 0) -> Level:
    return Level(Decimal(spent), Decimal(budget), Decimal(projected), START)


def cross(spent: int, known: dict[str, Edge] | None = None, *, day: int = 1, projected: int = 0) -> Crossing | None:
    return crossing(
        level(spent, projected=projected), known or {}, thresholds=THRESHOLDS, now=START + timedelta(days=day)
    )


def fired(*names: str) -> dict[str, Edge]:
    return {name: Edge(name, "e", armed=False) for name in names}


def test_edge_alerts_at_its_own_percentage_and_not_before() -> None:
    assert cross(49) is None
    found = cross(50)
    assert found is not None
    assert (found.type, found.threshold, found.severity) == ("threshold", 50, "info")


def test_several_edges_at_once_are_one_alert_of_the_highest() -> None:
    found = cross(85)
    assert found is not None
    assert (found.threshold, found.severity, found.edges) == (80, "warning", ("50", "80"))


def test_over_budget_is_more_than_all_of_it() -> None:
    at_limit, over = cross(100), cross(101)
    assert at_limit is not None
    assert over is not None
    assert (at_limit.type, over.type, over.severity) == ("threshold", "over_budget", "critical")
    assert over.edges == ("50", "80", "100", OVER)


def test_any_spend_of_a_budget_of_nothing_is_over() -> None:
    found = crossing(level(1, 0), {}, thresholds=THRESHOLDS, now=START)
    assert found is not None
    assert found.type == "over_budget"
    assert crossing(level(0, 0), {}, thresholds=THRESHOLDS, now=START) is None


def test_pace_alerts_once_a_week_and_only_after_some_days() -> None:
    assert cross(40, day=2, projected=200) is None
    first = cross(40, day=4, projected=200)
    assert first is not None
    assert first.type == "projected_overrun"
    assert cross(41, fired(*first.edges), day=6, projected=200) is None
    second = cross(42, fired(*first.edges), day=8, projected=200)
    assert second is not None
    assert second.edges != first.edges


def test_edge_is_armed_again_only_five_points_below() -> None:
    known = fired("50", "80")
    assert rearmed(level(80 - REARM_POINTS), known.values()) == []
    assert rearmed(level(80 - REARM_POINTS - 1), known.values()) == ["80"]


def test_what_is_taken_back_undoes_an_edge_as_soon_as_it_would_not_be_crossed() -> None:
    assert [edge.name for edge in undone(level(79), fired("50", "80").values())] == ["80"]
    assert undone(level(80), fired("80").values()) == []
    assert [edge.name for edge in undone(level(100), fired(OVER).values())] == [OVER]


spends = st.tuples(st.just("spend"), st.integers(0, 60))
moves = st.tuples(st.just("taken back"), st.integers(0, 60))
edits = st.tuples(st.just("budget"), st.integers(0, 200))


@given(st.lists(st.one_of(spends, spends, moves, edits), max_size=40))
def test_each_edge_alerts_once_for_each_time_it_is_armed(history: list[tuple[str, int]]) -> None:
    """Any interleaving of spends, reverts, re-categorizations and budget edits within one period."""
    spent, budget = 0, 100
    known: dict[str, Edge] = {}
    alerts: Counter[str] = Counter()
    armings: Counter[str] = Counter()
    for kind, number in history:
        if kind == "budget":
            budget = number
        spent = max(0, spent - number) if kind == "taken back" else spent + (number if kind == "spend" else 0)
        now = level(spent, budget)
        again = [edge.name for edge in undone(now, known.values())] if kind != "spend" else []
        again += rearmed(now, known.values())
        for name in dict.fromkeys(again):
            known[name] = Edge(name, known[name].event_id, armed=True)
            armings[name] += 1
        found = crossing(now, known, thresholds=THRESHOLDS, now=START)
        for name in found.edges if found else ():
            assert name not in known or known[name].armed
            assert spent > budget if name == OVER else now.reaches(int(name))
            known[name] = Edge(name, "e", armed=False)
            alerts[name] += 1
        for threshold in THRESHOLDS:  # nothing that is reached goes untold
            if now.reaches(threshold):
                assert not known[str(threshold)].armed
    for name, count in alerts.items():
        assert count <= 1 + armings[name]
