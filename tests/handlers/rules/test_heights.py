from __future__ import annotations

from datetime import UTC, datetime

import pytest

from config.chains import Chain
from handlers.rules.heights import heights
from store.records import Cursor

CHAIN = Chain(name="c", id=1, rpc=("http://127.0.0.1:1",), confirmations=3, finality_depth=10)


@pytest.mark.parametrize(
    ("number", "head", "finalized", "expected"),
    [
        (0, 0, 0, (0, 0, 0, 0)),
        (2, 2, 0, (2, 0, 0, 0)),
        (20, 20, 0, (20, 17, 10, 0)),
        (20, 20, 15, (20, 17, 15, 0)),
        (20, 20, 19, (20, 19, 19, 0)),
        (20, 25, 0, (20, 20, 15, 5)),
        (20, 100, 0, (20, 20, 20, 80)),
        (20, 19, 0, (20, 17, 10, 0)),
        (20, 20, 50, (20, 20, 20, 0)),
    ],
)
def test_heights(number: int, head: int, finalized: int, expected: tuple[int, int, int, int]) -> None:
    cursor = Cursor(1, number, "0x" + "00" * 32, datetime(2026, 11, 1, tzinfo=UTC), head, finalized)
    facts = heights(cursor, CHAIN)
    assert (facts.head, facts.confirmed, facts.finalized, facts.lag_blocks) == expected
    assert (facts.levels.head, facts.levels.confirmed, facts.levels.finalized) == expected[:3]
