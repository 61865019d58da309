"""As an attacker: what can be learned of one person by asking, joining, leaving, changing, and asking again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from handlers.deps import Deps
from handlers.rules.comparisons import EDGES, band, shown
from store import comparisons
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.factories import insert_transactions, make_hash, make_transaction
from tests.realtime.served import Client
from tests.realtime.test_rest_friends import befriend, named
from tests.realtime.wiring import FakeClock, busy, wire

FOOD, TRANSPORT = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2))
IN_OCTOBER, IN_SEPTEMBER = datetime(2025, 10, 15, tzinfo=UTC), datetime(2025, 9, 15, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, clock: FakeClock) -> Deps:
    return wire(pool, busy(make_settings), clock=clock)


@pytest.fixture
async def crowd(anyone: Client, me: Client, pool: Pool, clock: FakeClock) -> list[Client]:
    """Twelve others, who share; five of them are friends of `me`, who shares too."""
    others = [await anyone.signed_in() for _ in range(12)]
    for each in (me, *others):
        assert (await share(each, True)) == 200
    for each in others[:5]:
        await befriend(me, each)
    await pool.execute("UPDATE users SET created_at = '2025-01-01'")
    # Everybody signed in by the clock of the machine; from here on it is a November that is past for their tokens too.
    clock.now = datetime(2025, 11, 10, tzinfo=UTC)
    return others


async def share(client: Client, consent: bool) -> int:
    return (await client.call("PATCH", "/v1/me", json={"compareConsent": consent})).status


async def spends(
    pool: Pool, client: Client, usd: str | None, *, at: datetime = IN_OCTOBER, category: str | None = FOOD
) -> None:
    key = make_hash(client.address, usd, at, category, "tx")
    row = make_transaction(
        user=client.address,
        block_hash=make_hash(key, "block"),
        tx_hash=key,
        block_time=at,
        block_number=int(key[2:12], 16),
        usd=None if usd is None else Decimal(usd),
    )
    async with pool.acquire() as conn, conn.transaction():
        await insert_transactions(conn, [row])
        if category is not None:
            await conn.execute(
                """INSERT INTO transaction_categories (user_address, transaction_id, chain_id, category_id,
                       confidence_score, source) VALUES ($1, $2, $3, $4, 1, 'manual')""",
                client.address,
                row.id,
                row.chain_id,
                category,
            )


async def asked(client: Client, category: str | None = FOOD) -> dict[str, Any]:
    rows = await everything(client, category)
    return next(each for each in rows if each["categoryId"] == (category or FOOD))


async def everything(client: Client, category: str | None = None) -> list[dict[str, Any]]:
    got = await client.get("/v1/friends/comparisons" + (f"?category={category}" if category else ""))
    assert got.status == 200, got.body
    data: list[dict[str, Any]] = got.json["data"]
    return data


async def leave(client: Client, other: Client) -> None:
    """`other` removes `client` from their friends."""
    for each in (await other.get("/v1/friends")).json["data"]:
        assert (await other.call("DELETE", f"/v1/friends/{each['id']}")).status == 204


BANDS = [shown(number) for number in range(len(EDGES) + 1)]


async def test_a_cohort_is_answered_by_its_middle_band(me: Client, crowd: Sequence[Client], pool: Pool) -> None:
    await spends(pool, me, "149.99")
    for each, usd in zip(crowd, ("10", "60", "160", "900", "99999"), strict=False):
        await spends(pool, each, usd)
        await spends(pool, each, "5000", category=None)
        await spends(pool, each, "5000", at=IN_SEPTEMBER)
        await spends(pool, each, None)
    answer = await asked(me)
    assert answer == {
        "categoryId": FOOD,
        "month": "2025-10",
        "myBand": {"from": "50.00", "below": "150.00"},
        "unpriced": 0,
        "cohortBand": {"from": "150.00", "below": "400.00"},
        "cohortSize": 5,
        "withheld": None,
    }
    rows = await everything(me)
    assert len(rows) == 8
    assert rows[0] == answer
    assert all(each["cohortBand"] in BANDS and each["myBand"] in BANDS for each in rows)
    assert crowd[0].address not in repr(rows)


async def test_one_member_who_changes_within_their_band_changes_nothing(
    me: Client, crowd: Sequence[Client], pool: Pool
) -> None:
    """Two users with the same friends, of whom one spends all that the band holds between their questions."""
    twin = crowd[11]
    for each in crowd[:5]:
        await befriend(twin, each)
        await spends(pool, each, "150")
    before = await everything(me)
    await spends(pool, crowd[0], "249.99")
    after = await everything(twin)
    assert [each["cohortBand"] for each in before] == [each["cohortBand"] for each in after]


async def test_the_same_question_has_the_same_answer_whoever_joins_leaves_or_spends(
    me: Client, crowd: Sequence[Client], pool: Pool
) -> None:
    for each in crowd[:5]:
        await spends(pool, each, "100")
    before = await everything(me)
    await befriend(me, crowd[5])
    await spends(pool, crowd[5], "90000")
    assert await everything(me) == before
    for each in crowd[:5]:
        await spends(pool, each, "90000", category=FOOD)
        await spends(pool, each, "90000", category=TRANSPORT)
    assert await everything(me) == before
    assert await asked(me, TRANSPORT) == before[1]
    await leave(me, crowd[0])
    assert await everything(me) == before
    await share(crowd[1], False)
    assert {each["withheld"] for each in await everything(me)} == {"too_few"}
    await share(crowd[1], True)
    await befriend(me, crowd[0])
    assert await everything(me) == before


async def test_a_cohort_that_one_person_joined_or_left_answers_from_the_last_release(
    me: Client, crowd: Sequence[Client], pool: Pool, clock: FakeClock
) -> None:
    for each in crowd:
        await spends(pool, each, "100")
        await spends(pool, each, "5000", at=datetime(2025, 11, 20, tzinfo=UTC))
    before = await asked(me)
    clock.now = datetime(2025, 12, 10, tzinfo=UTC)
    await befriend(me, crowd[5])
    held = await asked(me)
    assert held == {**before, "withheld": "cohort_changed", "myBand": held["myBand"]}
    await leave(me, crowd[5])
    fresh = await asked(me)
    assert (fresh["month"], fresh["cohortBand"], fresh["withheld"]) == ("2025-11", BANDS[-1], None)


async def test_five_who_join_at_once_make_another_answer(me: Client, crowd: Sequence[Client], clock: FakeClock) -> None:
    assert (await asked(me))["cohortSize"] == 5
    for each in crowd[5:9]:
        await befriend(me, each)
    clock.now = datetime(2025, 12, 1, 12, tzinfo=UTC)
    assert (await asked(me))["withheld"] == "cohort_changed"
    await befriend(me, crowd[9])
    answer = await asked(me)
    assert (answer["month"], answer["cohortSize"], answer["withheld"]) == ("2025-11", 10, None)


async def test_what_is_withheld_says_why(me: Client, crowd: Sequence[Client], pool: Pool) -> None:
    def nothing(why: str, answer: dict[str, Any]) -> None:
        assert (answer["withheld"], answer["cohortBand"], answer["cohortSize"]) == (why, None, None)

    await share(me, False)
    nothing("no_consent", await asked(me))
    await share(me, True)
    await share(crowd[0], False)
    nothing("too_few", await asked(me))
    await share(crowd[0], True)
    await pool.execute("UPDATE users SET created_at = '2025-11-05' WHERE address = $1", crowd[0].address)
    nothing("no_data", await asked(me))
    own = await me.post("/v1/categories", {"name": "Dogs"})
    nothing("no_data", await asked(me, own.json["id"]))
    stranger = await crowd[10].get(f"/v1/friends/comparisons?category={own.json['id']}")
    assert stranger.status == 404
    for text in ("food", "%00", "x" * 500, "00000000-0000-4000-8000-0000000000ff"):
        assert (await me.get(f"/v1/friends/comparisons?category={text}")).status == 404


async def test_consent_is_asked_of_both(me: Client, crowd: Sequence[Client]) -> None:
    """One who does not share learns nothing, though all the others do; and counts for nobody."""
    assert (await me.get("/v1/me")).json["compareConsent"] is True
    for each in crowd[1:6]:
        if each is not crowd[1]:
            await befriend(crowd[1], each)
    await share(me, False)
    assert (await asked(me))["withheld"] == "no_consent"
    assert (await asked(crowd[1]))["withheld"] == "too_few"
    await share(me, True)
    assert (await asked(crowd[1]))["cohortSize"] == 5


async def test_who_is_removed_or_blocked_sees_nothing_at_once(me: Client, crowd: Sequence[Client]) -> None:
    for each in crowd[:5]:
        await named(each, "Someone")
    assert (await asked(me))["cohortSize"] == 5
    for each in crowd[:5]:
        [friend] = (await each.get("/v1/friends")).json["data"]
        assert (await each.post(f"/v1/friends/{friend['id']}/block")).status == 200
    assert {each["withheld"] for each in await everything(me)} == {"too_few"}
    assert (await me.get("/v1/friends")).json["data"] == []
    for each in crowd[:5]:
        assert (await me.post("/v1/friends/requests", {"address": each.address})).status == 202
        assert (await each.get("/v1/friends?status=received")).json["data"] == []


async def test_many_questions_at_once_release_one_answer(me: Client, crowd: Sequence[Client], pool: Pool) -> None:
    answers = await asyncio.gather(*(everything(me) for _ in range(8)), *(asked(me, TRANSPORT) for _ in range(4)))
    assert all(each == answers[0] for each in answers[:8])
    assert await pool.fetchval("SELECT count(*) FROM comparison_cohorts") == 1


async def test_an_attacker_with_four_accounts_learns_the_fifths_band_and_nothing_finer(
    me: Client, crowd: Sequence[Client], pool: Pool
) -> None:
    """The floor that is promised: two of one's own below and two above make the victim the middle."""
    for each, usd in zip(crowd, ("0.01", "0.01", "99999", "99999"), strict=False):
        await spends(pool, each, usd)
    await spends(pool, crowd[4], "777.77")
    assert (await asked(me))["cohortBand"] == shown(band(Decimal("777.77"))) == shown(band(Decimal(400)))


async def test_one_query_reads_the_whole_cohort(
    me: Client, crowd: Sequence[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = comparisons.spent

    async def counted(conn: Any, users: Any, month: Any) -> Any:
        calls.append(len(list(users)))
        return await real(conn, users, month)

    monkeypatch.setattr(comparisons, "spent", counted)
    await everything(me)
    assert calls == [5, 1]
    calls.clear()
    await everything(me)
    assert calls == [1]
