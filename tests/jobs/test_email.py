"""From the wish to the mailbox: digests at their hour, notices that stand, each letter once, and the way out."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.message import EmailMessage
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr

from handlers import mails as handlers
from handlers.deps import Deps
from handlers.errors import NotFound
from handlers.rules import unsubscribe
from handlers.rules.digest import Digest, Spent, period_due
from jobs import digests, email
from jobs.job import Tools
from jobs.outbound.mail import Smtp
from store import mails, notifications
from store.clickhouse import Analytics
from store.postgres import Pool
from store.sealed import KeyRing
from tests.conftest import MakeSettings
from tests.factories import insert_transactions, make_address, make_hash, make_transaction
from tests.handlers.ledger import Kept, sign_in
from tests.jobs.postbox import Postbox, postbox
from tests.jobs.test_push import Clock
from tests.store.test_notifications import make_notice, record

ANN, BOB = make_address("ann"), make_address("bob")
MONDAY = datetime(2026, 11, 23, 8, tzinfo=UTC)
FOOD = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
async def box() -> AsyncIterator[Postbox]:
    async with postbox() as box:
        yield box


@pytest.fixture
def clock() -> Clock:
    return Clock(MONDAY)


@pytest.fixture
async def tools(pool: Pool, make_settings: MakeSettings, box: Postbox, clock: Clock) -> AsyncIterator[Tools]:
    key = SecretStr("k1:" + base64.b64encode(b"k" * 32).decode())
    settings = make_settings(seal_keys=(key,), public_url="https://api.expendi.example/")
    analytics = Analytics("http://127.0.0.1:9/unused")
    deps = Deps(settings, {}, pool, Kept(), clock)
    await sign_in(pool, ANN, BOB)
    await reach(pool, KeyRing.of(settings), ANN, "ann@example.com")
    yield Tools(deps, analytics, mail=Smtp(box.url, "Expendi <no-reply@expendi.example>"))
    await analytics.close()


async def reach(pool: Pool, ring: KeyRing, user: str, address: str) -> None:
    sealed = ring.seal(address, purpose="email", owner=user)
    await pool.execute("UPDATE users SET email = $2 WHERE address = $1", user, sealed)


async def spend(pool: Pool, usd: str | None, *, days_ago: float, category: str | None = FOOD, user: str = ANN) -> None:
    at = MONDAY - timedelta(days=days_ago)
    row = make_transaction(
        user=user,
        tx_hash=make_hash(usd, days_ago, category),
        block_hash=make_hash("block", days_ago),
        block_number=int(at.timestamp()),
        block_time=at,
        usd=None if usd is None else Decimal(usd),
    )
    async with pool.acquire() as conn, conn.transaction():
        await insert_transactions(conn, [row])
    if category is not None:
        await pool.execute(
            """INSERT INTO transaction_categories
                   (user_address, transaction_id, chain_id, category_id, confidence_score, source)
               VALUES ($1, $2, $3, $4, 1, 'manual')""",
            user,
            row.id,
            row.chain_id,
            category,
        )


def part(letter: EmailMessage, kind: str) -> str:
    found = letter.get_body((kind,))
    assert found is not None
    return str(found.get_content())


async def turn(tools: Tools) -> None:
    await digests.record_due(tools)
    await email.record_notices(tools)
    await email.run(tools)


async def test_weekly_digest_tells_the_week_by_category_against_the_one_before(
    tools: Tools, pool: Pool, box: Postbox
) -> None:
    await spend(pool, "30", days_ago=2)
    await spend(pool, "12.5", days_ago=3)
    await spend(pool, "85", days_ago=9)
    await spend(pool, "7", days_ago=4, category=None)
    await spend(pool, None, days_ago=5)
    await spend(pool, "1000", days_ago=0.1)  # this week's
    await spend(pool, "500", days_ago=2, user=BOB)
    await pool.execute(
        """INSERT INTO user_categories (user_address, category_id, custom_name, monthly_budget)
           VALUES ($1, $2, 'Eating <b>out</b>', 200)""",
        ANN,
        FOOD,
    )
    await record(pool, make_notice(user=ANN, created_at=MONDAY - timedelta(days=2)))
    await turn(tools)
    [letter] = box.got
    assert letter["Subject"] == "Your week with Expendi"
    assert letter["To"] == "ann@example.com"
    text = part(letter, "plain")
    assert "16 November – 22 November 2026: you spent $49.50." in text  # no percentage: a spend has no price
    assert "Eating <b>out</b>: $42.50 (before: $85.00)" in text
    assert "Not categorized: $7.00 (before: $0.00)" in text
    assert "1 spend without a known price not counted." in text
    assert "Eating <b>out</b>: $1,127.50 of $200.00 (563 %)" in text
    assert "1 budget alert this week, 1 notification not read yet." in text
    html = part(letter, "html")
    assert "Eating &lt;b&gt;out&lt;/b&gt;" in html
    assert "<b>out" not in html
    assert "$49.50" in html
    assert "fonts." not in html
    assert "mj-" not in html.replace("mj-column", "").replace("mj-outlook", "")


def test_weeks_are_compared_where_both_are_whole() -> None:
    period = period_due("weekly", ZoneInfo("UTC"), MONDAY)
    assert period is not None
    whole = Digest(period, [Spent("a", Decimal("49.50"), Decimal(85))], (), 0, 0)
    assert digests.words(whole)["comparison"] == ", 42 % less than the week before"


async def test_digest_goes_out_once_at_its_hour_in_the_user_s_zone(
    tools: Tools, pool: Pool, box: Postbox, clock: Clock
) -> None:
    await pool.execute("UPDATE users SET time_zone = 'America/New_York' WHERE address = $1", ANN)
    await spend(pool, "30", days_ago=2)
    await turn(tools)
    assert box.got == []
    clock.now += timedelta(hours=5)
    await asyncio.gather(*(digests.record_due(tools) for _ in range(4)))
    await turn(tools)
    clock.now += timedelta(hours=1)
    await turn(tools)
    assert len(box.got) == 1
    clock.now += timedelta(days=7)
    await turn(tools)
    assert len(box.got) == 2  # the week before is still worth comparing with
    assert len({letter["Message-ID"] for letter in box.got}) == 2


async def test_everyone_of_a_zone_is_asked_for_however_many_there_are(
    tools: Tools, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "BATCH", 2)
    users = [make_address("user", n) for n in range(5)]
    await sign_in(pool, *users)
    for user in users:
        await reach(pool, KeyRing.of(tools.deps.settings), user, "user@example.com")
    assert await digests.record_due(tools) == 6
    assert await digests.record_due(tools) == 0


async def test_letter_is_settled_by_the_attempt_that_holds_it(tools: Tools, pool: Pool) -> None:
    await digests.record_due(tools)
    [late] = await mails.claim(pool, now=MONDAY, lease_s=30, limit=5)
    [row] = await mails.claim(pool, now=MONDAY + timedelta(seconds=30), lease_s=30, limit=5)
    await mails.settle(pool, late, "dropped", not_before=MONDAY)
    assert await pool.fetchval("SELECT state FROM mails") == "sending"
    await mails.settle(pool, row, "sent", not_before=MONDAY)
    await mails.settle(pool, row, "due", not_before=MONDAY)
    assert await pool.fetchval("SELECT state FROM mails") == "sent"


async def test_who_wants_none_has_no_address_or_did_nothing_gets_none(tools: Tools, pool: Pool, box: Postbox) -> None:
    await spend(pool, "30", days_ago=2, user=BOB)  # has no address
    await turn(tools)
    assert await pool.fetchval("SELECT reason FROM mails") == "nothing_to_say"
    await pool.execute("DELETE FROM mails")
    await spend(pool, "30", days_ago=2)
    await pool.execute("UPDATE users SET digest = 'off'")
    await turn(tools)
    await pool.execute("UPDATE users SET digest = 'daily'")  # nothing spent yesterday or the day before
    await spend(pool, "5", days_ago=0.5)
    await turn(tools)
    assert [letter["Subject"] for letter in box.got] == ["Your day with Expendi"]


async def test_digest_turned_off_after_it_was_asked_for_is_not_sent(tools: Tools, pool: Pool, box: Postbox) -> None:
    await spend(pool, "30", days_ago=2)
    await digests.record_due(tools)
    await pool.execute("UPDATE users SET digest = 'off'")
    await email.run(tools)
    assert box.got == []


async def test_notice_becomes_a_letter_where_wanted_while_it_stands_unread(
    tools: Tools, pool: Pool, box: Postbox, clock: Clock
) -> None:
    await notifications.set_preferences(pool, ANN, {("spending_alert", "email"): True})
    made = [make_notice(f"e{n}", user=ANN, created_at=MONDAY) for n in range(3)]
    other = make_notice("other", user=ANN, created_at=MONDAY, kind="goal_milestone")
    await record(pool, *made, other, make_notice(user=BOB, created_at=MONDAY))
    clock.now += timedelta(seconds=119)
    await turn(tools)
    assert box.got == []
    async with pool.acquire() as conn, conn.transaction():
        await notifications.read_ids(conn, ANN, [made[0].id], at=MONDAY)
        await notifications.correct(conn, ANN, ["e1"], at=MONDAY)
    clock.now += timedelta(seconds=1)
    await turn(tools)
    await turn(tools)
    [letter] = box.got
    assert await pool.fetchval("SELECT count(*) FROM mails WHERE kind <> 'digest'") == 1
    assert letter["Subject"] == "Food"
    assert "80 % of Food is spent." in part(letter, "plain")


async def test_letter_that_was_taken_back_after_it_was_asked_for_is_not_sent(
    tools: Tools, pool: Pool, box: Postbox, clock: Clock
) -> None:
    await notifications.set_preferences(pool, ANN, {("spending_alert", "email"): True})
    await record(pool, make_notice(user=ANN, created_at=MONDAY))
    clock.now += timedelta(minutes=3)
    await email.record_notices(tools)
    async with pool.acquire() as conn, conn.transaction():
        await notifications.correct(conn, ANN, ["e1"], at=MONDAY)
    await email.run(tools)
    assert box.got == []
    assert await pool.fetchval("SELECT reason FROM mails") == "unwanted"


async def test_server_that_is_busy_gets_it_later_and_one_that_refuses_never(
    tools: Tools, pool: Pool, box: Postbox, clock: Clock
) -> None:
    await spend(pool, "30", days_ago=2)
    box.replies["delivered"] = ["421 busy", "hang up"]
    await turn(tools)
    clock.now += timedelta(seconds=4)
    await turn(tools)
    assert len(box.got) == 1
    clock.now += timedelta(seconds=1)
    await turn(tools)  # taken, and then the line breaks: nobody knows
    clock.now += timedelta(seconds=10)
    await turn(tools)
    assert [await pool.fetchval("SELECT state FROM mails"), len(box.got)] == ["sent", 3]
    assert len({letter["Message-ID"] for letter in box.got}) == 1
    await pool.execute("DELETE FROM mails")
    box.replies["RCPT"] = ["550 no such mailbox"]
    await turn(tools)
    clock.now += timedelta(hours=1)
    await turn(tools)
    assert len(box.got) == 3
    assert await pool.fetchval("SELECT state FROM mails") == "dropped"


async def test_worker_that_died_leaves_its_letter_to_another(
    tools: Tools, pool: Pool, box: Postbox, clock: Clock
) -> None:
    await spend(pool, "30", days_ago=2)
    await digests.record_due(tools)
    await pool.execute("UPDATE mails SET state = 'sending', not_before = $1", clock.now + timedelta(seconds=60))
    await email.run(tools)
    assert box.got == []
    clock.now += timedelta(seconds=60)
    await asyncio.gather(email.run(tools), email.run(replace(tools, mailing=asyncio.Lock())))
    assert len(box.got) == 1


async def test_without_a_mail_server_nothing_is_asked_for(tools: Tools, pool: Pool) -> None:
    await spend(pool, "30", days_ago=2)
    await turn(replace(tools, mail=None))
    assert await pool.fetchval("SELECT count(*) FROM mails") == 0


# -- the way out -------------------------------------------------------------------------------------------------------


def token_of(letter: EmailMessage) -> str:
    url = letter["List-Unsubscribe"].strip("<>")
    assert url.startswith("https://api.expendi.example/v1/unsubscribe/")
    assert url in part(letter, "plain")
    assert ANN[2:] not in url
    return str(url.rpartition("/")[2])


async def test_link_of_a_digest_ends_digests(tools: Tools, pool: Pool, box: Postbox, clock: Clock) -> None:
    await spend(pool, "30", days_ago=2)
    await turn(tools)
    token = token_of(box.got[0])
    before = await pool.fetchval("SELECT revision FROM users WHERE address = $1", ANN)
    assert await handlers.kind_of(tools.deps, token) == "digest"
    assert await handlers.unsubscribe(tools.deps, token) == "digest"
    assert await handlers.unsubscribe(tools.deps, token) == "digest"
    row = await pool.fetchrow("SELECT digest, revision FROM users WHERE address = $1", ANN)
    assert row is not None
    assert (row["digest"], row["revision"]) == ("off", before + 1)
    clock.now += timedelta(days=7)
    await turn(tools)
    assert len(box.got) == 1


async def test_link_of_a_notice_ends_its_kind_also_what_waits(
    tools: Tools, pool: Pool, box: Postbox, clock: Clock
) -> None:
    await notifications.set_preferences(pool, ANN, {("spending_alert", "email"): True})
    await record(pool, make_notice(user=ANN, created_at=MONDAY))
    clock.now += timedelta(minutes=3)
    await turn(tools)
    await record(pool, make_notice("e2", user=ANN, created_at=clock.now))
    clock.now += timedelta(minutes=3)
    await email.record_notices(tools)
    assert await handlers.unsubscribe(tools.deps, token_of(box.got[0])) == "spending_alert"
    await turn(tools)
    assert len(box.got) == 1
    assert not (await notifications.allowed(pool, [ANN]))[ANN].allows("spending_alert", "email")


async def test_link_with_another_signature_ends_nothing(tools: Tools, pool: Pool) -> None:
    await digests.record_due(tools)
    letter = await pool.fetchval("SELECT id FROM mails")
    good = unsubscribe.token(tools.deps.settings, letter)
    other = tools.deps.settings.model_copy(update={"secret_key": SecretStr("x" * 32)})
    assert await handlers.kind_of(tools.deps, good) == "digest"
    for bad in (unsubscribe.token(other, letter), good[1:] + good[0], good + "A", good[:-1]):
        with pytest.raises(NotFound):
            await handlers.unsubscribe(tools.deps, bad)


async def test_made_up_links_end_nothing(tools: Tools) -> None:
    for made_up in ("", "x", "ü", "A" * 43, "A" * 64):
        with pytest.raises(NotFound):
            await handlers.unsubscribe(tools.deps, made_up)
