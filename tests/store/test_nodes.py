"""Who is passed over, by tables of what was seen: no network, a clock that is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from store.nodes import (
    GRAVE,
    HALF_LIFE_S,
    LONGEST,
    BatchSize,
    Failed,
    Knows,
    Lied,
    Limits,
    Pool,
    Seen,
    Told,
    Verdict,
    liars,
    observe,
)

LIMITS = Limits(lag_blocks=5, stale_s=30, aside_s=3)
Step = tuple[float, int, Seen]
"""When, of which node, what."""


def after(steps: Sequence[Step], *, count: int = 3, committed: int = 0) -> tuple[Pool, list[Verdict | None]]:
    """The pool after these steps and each step's verdict."""
    pool = replace(Pool.of(count, LIMITS), committed=committed)
    verdicts: list[Verdict | None] = []
    for now, i, seen in steps:
        pool, verdict = observe(pool, i, seen, now=now)
        verdicts.append(verdict)
    return pool, verdicts


HEADS: list[Step] = [(0, 0, Told(100)), (0, 1, Told(100)), (0, 2, Told(100))]


@pytest.mark.parametrize(
    ("name", "steps", "expected"),
    [
        ("a fault passes the node in use over", [(0, 0, Failed(1))], Verdict("error")),
        ("a fault of a node that is not in use changes nothing", [(0, 1, Failed(1))], None),
        ("a fault without weight passes over too", [(0, 0, Failed(0))], Verdict("error")),
        ("the third fault in a row puts aside", [(0, 1, Failed(1))] * 3, Verdict("error", 3)),
        ("two faults and one long ago do not", [(0, 1, Failed(1))] * 2 + [(300, 1, Failed(1))], None),
        ("empty logs are told as such", [(0, 0, Failed(1.5, "empty_logs"))], Verdict("empty_logs")),
        ("twice empty logs put aside", [(0, 0, Failed(1.5, "empty_logs"))] * 2, Verdict("empty_logs", 3)),
        ("equal heads are fine", HEADS, None),
        ("five blocks behind is fine", [*HEADS, (1, 0, Told(105)), (1, 2, Told(100))], None),
        ("six blocks behind is lag", [*HEADS, (1, 0, Told(106)), (1, 2, Told(100))], Verdict("lag", 3)),
        ("the node in use lags as well", [*HEADS, (1, 1, Told(106)), (1, 0, Told(100))], Verdict("lag", 3)),
        ("a small step back is fine", [*HEADS, (1, 0, Told(95))], None),
        ("a large step back is stale", [*HEADS, (1, 0, Told(94))], Verdict("stale", 3)),
        ("all stand still: nobody is stale", [*HEADS, (99, 0, Told(100))], None),
        ("standing still while others move", [*HEADS, (9, 1, Told(101)), (31, 0, Told(100))], Verdict("stale", 3)),
        ("not yet for so long", [*HEADS, (9, 1, Told(101)), (30, 0, Told(100))], None),
        ("moved meanwhile", [*HEADS, (9, 0, Told(101)), (20, 1, Told(102)), (31, 0, Told(101))], None),
        (
            "back and forth is not moving",
            [*HEADS, (9, 1, Told(101)), (20, 0, Told(99)), (25, 0, Told(100)), (31, 0, Told(100))],
            Verdict("stale", 3),
        ),
        ("another chain", [(0, 2, Lied("wrong_chain"))], Verdict("wrong_chain", 3 * GRAVE)),
        ("another history", [(0, 2, Lied("disagreement"))], Verdict("disagreement", 3 * GRAVE)),
        ("unknown twice", [(0, 0, Knows(False))] * 2, None),
        ("unknown three times", [(0, 0, Knows(False))] * 3, Verdict("disagreement", 3 * GRAVE)),
        ("known between", [(0, 0, Knows(False))] * 2 + [(0, 0, Knows(True)), (0, 0, Knows(False))], None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_last_step_is_judged(name: str, steps: list[Step], expected: Verdict | None) -> None:
    assert after(steps)[1][-1] == expected


def test_node_that_is_passed_over_is_asked_last_and_the_next_one_keeps_the_calls() -> None:
    pool, _ = after([(0, 0, Failed(1))])
    assert pool.usable(0) == (1, 2, 0)

    pool, _ = observe(pool, 1, Failed(1), now=1)
    assert pool.usable(1) == (2, 0, 1)


def test_node_that_is_put_aside_is_not_asked_until_its_pause_ends() -> None:
    pool, _ = after([(10, 0, Lied("disagreement"))])

    assert pool.usable(10) == (1, 2)
    assert pool.usable(10 + 3 * GRAVE - 0.01) == (1, 2)
    assert pool.usable(10 + 3 * GRAVE) == (1, 2, 0)


def test_pauses_grow_to_the_longest_and_begin_anew_after_a_long_good_time() -> None:
    pool, now = Pool.of(2, LIMITS), 0.0
    pauses = []
    for _ in range(8):
        pool, verdict = observe(pool, 0, Lied("wrong_chain"), now=now)
        assert verdict is not None
        pauses.append(verdict.pause_s)
        now += verdict.pause_s
    assert pauses == [30, 60, 120, 240, 300, 300, 300, 300]
    assert pauses[-1] == LONGEST * LIMITS.aside_s

    _, verdict = observe(pool, 0, Lied("wrong_chain"), now=now + 601)
    assert verdict == Verdict("wrong_chain", 30)


def test_what_a_node_told_before_its_pause_is_forgotten() -> None:
    pool, _ = after([*HEADS, (1, 0, Told(10**9)), (2, 0, Lied("wrong_chain"))])
    for i in (1, 2):
        pool, verdict = observe(pool, i, Told(101), now=3)
        assert verdict is None
    # While it is away its head counts for nothing, and neither does what it told before when it comes back.
    _, verdict = observe(pool, 0, Told(102), now=99)
    assert verdict is None


def test_height_that_nobody_vouches_for_makes_nobody_late() -> None:
    _, verdicts = after([*HEADS, (1, 0, Told(10**9, vouched=False)), (2, 1, Told(101)), (2, 2, Told(101))])

    assert verdicts[-2:] == [None, None]


def test_node_that_is_aside_is_not_put_aside_again() -> None:
    pool, verdicts = after([(0, 1, Lied("disagreement")), (1, 1, Lied("disagreement"))])

    assert verdicts[1] is None
    assert pool.nodes[1].aside_until == 3 * GRAVE


def test_when_all_are_aside_all_are_asked_the_first_to_come_back_first() -> None:
    pool, _ = after([(0, 2, Lied("wrong_chain")), (1, 0, Failed(9)), (2, 1, Failed(9))])

    assert pool.usable(2) == (0, 1, 2)


@pytest.mark.parametrize("seen", [Failed(9), Lied("wrong_chain"), Lied("disagreement"), Knows(False), Told(1)])
def test_only_node_of_a_chain_is_never_passed_over(seen: Seen) -> None:
    pool, verdicts = after([(0, 0, Told(100))] + [(now, 0, seen) for now in range(100)], count=1, committed=100)

    assert set(verdicts) == {None}
    assert pool.usable(99) == (0,)
    assert not pool.nodes[0].is_aside(99)


def test_block_that_we_stand_at_counts_as_a_head() -> None:
    assert after([(0, 0, Told(94))], committed=100)[1] == [Verdict("lag", 3)]
    assert after([(0, 0, Told(95))], committed=100)[1] == [None]


def test_weight_of_faults_decays() -> None:
    pool, _ = after([(0, 0, Failed(2))])

    assert pool.nodes[0].weight_at(HALF_LIFE_S) == pytest.approx(1)
    assert pool.nodes[0].weight_at(10 * HALF_LIFE_S) < 0.01


def test_lag_is_shown_against_the_best_of_the_others() -> None:
    pool, _ = after([(0, 0, Told(100)), (0, 1, Told(103))])

    assert [pool.lag(i, 0) for i in range(3)] == [3, 0, 0]


@pytest.mark.parametrize(
    ("votes", "ours", "expected"),
    [
        ({}, "a", set()),
        ({0: "a"}, "a", set()),
        ({0: "b"}, "a", set()),  # nobody to compare with
        ({0: "a", 1: "a"}, "a", set()),
        ({0: "b", 1: "b"}, "a", set()),  # the chain changed
        ({0: "a", 1: "b"}, "a", {1}),
        ({0: "b", 1: "a"}, "a", {0}),
        ({0: "b", 1: "c"}, "a", set()),  # nothing decides
        ({0: "a", 1: "b"}, None, set()),
        ({0: "a", 1: "a", 2: "b"}, "a", {2}),
        ({0: "a", 1: "b", 2: "b"}, "a", {0}),  # the majority, against ours
        ({0: "a", 1: "b", 2: "b"}, None, {0}),
        ({0: "a", 1: "b", 2: "c"}, "a", {1, 2}),
        ({0: "a", 1: "a", 2: "b", 3: "b"}, "a", {2, 3}),  # half is no majority
        ({0: "b", 1: "b", 2: "c", 3: "c"}, "a", set()),
    ],
)
def test_majority_of_three_is_believed_else_who_agrees_with_us(
    votes: dict[int, str], ours: str | None, expected: set[int]
) -> None:
    assert liars(votes, ours) == expected


def test_batches_halve_when_refused_and_grow_again_after_many_that_worked() -> None:
    size = BatchSize(100)
    for asked, left in ((100, 50), (50, 25), (25, 12)):
        size.refused(asked)
        assert size.size == left
    size.refused(40)  # of a request that was under way before
    assert size.size == 12

    size.worked(3)
    for _ in range(BatchSize.RELAX_AFTER - 1):
        size.worked(12)
    assert size.size == 12
    size.worked(12)
    assert size.size == 24
    for _ in range(10 * BatchSize.RELAX_AFTER):
        size.worked(size.size)
    assert size.size == 100


def test_batches_never_shrink_to_nothing() -> None:
    size = BatchSize(2)
    for _ in range(3):
        size.refused(1)
    assert size.size == 1
