"""Push intents in PostgreSQL: one per effect, whatever is recorded, taken back, claimed and settled in between."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from store import log, pushes
from store.postgres import Pool
from store.pushes import Intent, PushRow, Settled
from store.records import Draft
from tests.factories import insert_transactions, make_address, make_hash, make_transaction
from tests.handlers.ledger import sign_in

ANN, EVE = make_address("ann"), make_address("eve")
NOW = datetime(2026, 12, 24, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=11)
EVENTS = ("e1", "e2", "e3")


def make_intent(event: str = "e1", **overrides: Any) -> Intent:
    fields: dict[str, Any] = {
        "user": ANN,
        "subject": "1:0xabc:0:spending_alert",
        "event_id": event,
        "kind": "spending_alert",
        "facts": {"from": event},
        **overrides,
    }
    return Intent(**fields)


async def append(pool: Pool, *events: str) -> None:
    """What a block does before it records pushes: the events are in the log."""
    drafts = [Draft(ANN, event, "budget_alert", 1, {}) for event in events]
    async with pool.acquire() as conn, conn.transaction():
        await log.append(conn, await log.lock(conn, [ANN]), drafts, at=NOW)


async def record(pool: Pool, *intents: Intent, at: datetime = NOW) -> None:
    async with pool.acquire() as conn, conn.transaction():
        await pushes.record(conn, intents, at=at, hold_s=10)


async def take_back(pool: Pool, *events: str) -> None:
    async with pool.acquire() as conn, conn.transaction():
        await pushes.take_back(conn, ANN, events, at=NOW)


async def claimed(pool: Pool, now: datetime = LATER) -> list[PushRow]:
    return await pushes.claim(pool, now=now, lease_s=30, limit=10)


async def send(pool: Pool, row: PushRow) -> None:
    await pushes.settle(pool, row, Settled(state="sent", not_before=LATER, delivered=frozenset({uuid4()})))


async def state(pool: Pool) -> tuple[str, str, bool]:
    row = await pool.fetchrow("SELECT state, event_id, silent FROM pushes")
    assert row is not None
    return row["state"], row["event_id"], row["silent"]


@pytest.fixture(autouse=True)
async def _log(pool: Pool) -> None:
    await sign_in(pool, ANN)
    await append(pool, "other", *EVENTS)


async def test_push_is_due_after_the_hold_with_the_seq_of_its_event(pool: Pool) -> None:
    await record(pool, make_intent())
    assert await claimed(pool, NOW + timedelta(seconds=9)) == []
    [row] = await claimed(pool)
    assert (row.seq, row.event_id, row.attempts, row.facts, row.stands) == (2, "e1", 1, {"from": "e1"}, True)


async def test_event_outside_the_log_is_no_push(pool: Pool) -> None:
    await record(pool, make_intent("unknown"), make_intent(user=EVE))
    assert await pool.fetchval("SELECT count(*) FROM pushes") == 0


async def test_the_same_event_again_changes_nothing(pool: Pool) -> None:
    await record(pool, make_intent())
    before = await pool.fetchrow("SELECT * FROM pushes")
    await record(pool, make_intent(facts={"from": "elsewhere"}), at=LATER)
    assert await pool.fetchrow("SELECT * FROM pushes") == before


async def test_two_effects_of_one_subject_are_one_push(pool: Pool) -> None:
    await record(pool, make_intent("e1"), make_intent("e2"), make_intent("e3", subject="other"))
    await record(pool, make_intent("e1"))
    assert [row.event_id for row in await claimed(pool)] == ["e1", "e3"]


async def test_claimed_push_is_taken_by_nobody_else_until_its_lease_ends(pool: Pool) -> None:
    await record(pool, *(make_intent(subject=f"s{n}") for n in range(6)))
    found = await asyncio.gather(*(pushes.claim(pool, now=LATER, lease_s=30, limit=3) for _ in range(4)))
    assert len({row.id for rows in found for row in rows}) == sum(map(len, found)) == 6
    again = await claimed(pool, LATER + timedelta(seconds=30))
    assert [row.attempts for row in again] == [2] * 6


async def test_claims_that_meet_neither_share_nor_wait(pool: Pool) -> None:
    await record(pool, *(make_intent(subject=f"s{n}") for n in range(6)))
    async with pool.acquire() as first, pool.acquire() as second, first.transaction(), second.transaction():
        mine = await pushes.claim(first, now=LATER, lease_s=30, limit=3)
        async with asyncio.timeout(5):
            theirs = await pushes.claim(second, now=LATER, lease_s=30, limit=10)
    assert (len(mine), len(theirs)) == (3, 3)
    assert not {row.id for row in mine} & {row.id for row in theirs}


async def test_settling_is_for_the_attempt_that_holds_the_lease(pool: Pool) -> None:
    await record(pool, make_intent())
    [late] = await claimed(pool)
    [row] = await claimed(pool, LATER + timedelta(seconds=30))
    await pushes.settle(pool, late, Settled(state="dropped", not_before=NOW))
    assert (await state(pool))[0] == "sending"
    await send(pool, row)
    assert (await state(pool))[0] == "sent"


async def test_taken_back_before_it_was_sent_is_dropped_and_due_again_when_included_again(pool: Pool) -> None:
    await record(pool, make_intent("e1"))
    await take_back(pool, "e1")
    assert await state(pool) == ("dropped", "e1", False)
    assert await claimed(pool) == []
    await record(pool, make_intent("e2"))
    [row] = await claimed(pool)
    assert (row.event_id, row.facts, row.seq) == ("e2", {"from": "e2"}, 3)


async def test_included_again_after_it_was_sent_is_not_sent_again(pool: Pool) -> None:
    await record(pool, make_intent("e1"))
    await send(pool, (await claimed(pool))[0])
    await take_back(pool, "e1")
    await record(pool, make_intent("e2"))
    assert await state(pool) == ("sent", "e1", False)
    far = NOW + timedelta(days=1)
    assert await claimed(pool, far) == []
    assert await pushes.claim_reverted(pool, now=far, after_s=60, lease_s=30, limit=10) == []
    await take_back(pool, "e2")  # the second block too: what stands for the effect now is its event
    assert len(await pushes.claim_reverted(pool, now=far, after_s=60, lease_s=30, limit=10)) == 1


async def test_staying_taken_back_it_is_replaced_once_and_comes_back_without_a_sound(pool: Pool) -> None:
    await record(pool, make_intent("e1"))
    await send(pool, (await claimed(pool))[0])
    await take_back(pool, "e1")

    async def reverted(seconds: float) -> list[PushRow]:
        now = NOW + timedelta(seconds=seconds)
        return await pushes.claim_reverted(pool, now=now, after_s=60, lease_s=30, limit=10)

    assert await reverted(59) == []
    assert len(await reverted(60)) == 1
    assert await reverted(61) == []
    [row] = await reverted(90)  # the lease ran out
    assert (row.silent, row.attempts, row.event_id) == (True, 2, "e1")
    await pushes.settle(pool, row, Settled(state="replaced", not_before=NOW))
    assert await reverted(1000) == []
    await record(pool, make_intent("e2"))
    [row] = await claimed(pool)
    assert (row.silent, row.event_id, row.delivered) == (True, "e2", frozenset())
    await take_back(pool, "e2")
    await pushes.settle(pool, row, Settled(state="due", not_before=NOW))
    assert (await state(pool))[0] == "replaced"


async def test_attempt_that_saw_it_taken_back_does_not_lose_it_when_it_came_back_meanwhile(pool: Pool) -> None:
    await record(pool, make_intent("e1"))
    [row] = await claimed(pool)
    await take_back(pool, "e1")
    await record(pool, make_intent("e2"))
    await pushes.settle(pool, row, Settled(state="due", not_before=LATER))
    assert len(await claimed(pool)) == 1


async def test_taken_back_while_it_is_sent_is_neither_sent_nor_tried_again(pool: Pool) -> None:
    await record(pool, make_intent("e1"), make_intent("e2", subject="other"))
    first, second = await claimed(pool)
    await take_back(pool, "e1", "e2")
    assert await pushes.still(pool, [first.id, second.id]) == set()
    await pushes.settle(pool, first, Settled(state="due", not_before=LATER))
    half = Settled(state="due", not_before=LATER, delivered=frozenset({uuid4()}))
    await pushes.settle(pool, second, half)
    found = {row["subject"]: row["state"] for row in await pool.fetch("SELECT subject, state FROM pushes")}
    assert found == {first.subject: "dropped", second.subject: "sent"}


async def test_taken_back_while_it_waits_for_another_try_it_is_replaced_where_it_arrived(pool: Pool) -> None:
    await record(pool, make_intent("e1"))
    [row] = await claimed(pool)
    await pushes.settle(pool, row, Settled(state="due", not_before=LATER, delivered=frozenset({uuid4()})))
    await take_back(pool, "e1")
    assert await claimed(pool, LATER + timedelta(days=1)) == []
    later = NOW + timedelta(seconds=60)
    assert len(await pushes.claim_reverted(pool, now=later, after_s=60, lease_s=30, limit=10)) == 1


async def test_held_push_stays_held_when_its_effect_comes_again(pool: Pool) -> None:
    await record(pool, make_intent("e1"))
    [row] = await claimed(pool)
    await pushes.settle(pool, row, Settled(state="held", not_before=NOW))
    await take_back(pool, "e1")
    await record(pool, make_intent("e2"))
    assert (await state(pool))[0] == "held"


async def test_push_of_a_transaction_that_left_the_ledger_does_not_stand(pool: Pool) -> None:
    kept, gone = make_transaction(user=ANN), make_transaction(user=ANN, tx_hash=make_hash("gone"), canonical=False)
    async with pool.acquire() as conn, conn.transaction():
        await insert_transactions(conn, [kept, gone])
    await record(pool, *(make_intent(subject=row.id, transaction_id=row.id) for row in (kept, gone)))
    assert {row.subject: row.stands for row in await claimed(pool)} == {kept.id: True, gone.id: False}


async def test_audience_tells_zone_quiet_hours_and_hidden_amounts(pool: Pool) -> None:
    await pool.execute("UPDATE users SET time_zone = 'Asia/Tokyo', hide_amounts = true, quiet_start = '22:00'")
    found = await pushes.audience(pool, [ANN, EVE])
    assert list(found) == [ANN]
    assert (found[ANN].time_zone, found[ANN].hide_amounts, str(found[ANN].quiet_start)) == (
        "Asia/Tokyo",
        True,
        "22:00:00",
    )


async def test_old_pushes_are_pruned_in_batches(pool: Pool) -> None:
    await record(pool, *(make_intent(subject=f"s{n}") for n in range(3)))
    assert await pushes.prune(pool, before=NOW, batch=2) == 0
    assert await pushes.prune(pool, before=LATER, batch=2) == 2
    assert await pushes.prune(pool, before=LATER, batch=2) == 1
