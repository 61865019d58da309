"""Hostile filters of analytics: a problem or an empty answer, never another user's row, never a fault of ours."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.deps import Deps
from store import persistence
from store.clickhouse import Analytics
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.handlers.test_persistence import work
from tests.realtime import rows
from tests.realtime.served import Client, Got
from tests.realtime.wiring import busy, wire

MINE, THEIRS = Decimal("12.50"), Decimal("777.77")
NAMES = ("timeframe", "categoryIds", "from", "to", "days", "cursor", "user")
ROUTES = ("/v1/analytics/trends", "/v1/analytics/forecast", "/v1/summary", "/v1/analytics/buckets", "/v1/transactions")
TEXTS = (
    "",
    "'",
    '"',
    "\\",
    "\\'",
    "%",
    "\x00",
    "day\x00",
    "\n",
    "\u202e\ufeff",
    "\U0001f98a" * 200,
    "a" * 4000,
    "' OR 1=1 --",
    "') OR ('' = '",
    "day' UNION ALL SELECT user_id, category_id, amount_usd, 1, 1 FROM transaction_events --",
    "0) UNION SELECT * FROM system.tables FORMAT JSON --",
    "1; DROP TABLE transaction_events",
    "[1,2,3]",
    "{user:String}",
    "${jndi:ldap://x}",
    "null",
    "none",
    "none'",
    "-1",
    "0",
    "1e309",
    "NaN",
    "99999999999999999999999999",
    "٣",
    "0x" + "f" * 64,
)
SHORT = tuple(text for text in TEXTS if len(text) < 100)
"""Four of these are less than a request line may be long: beyond that aiohttp itself refuses."""
MOMENTS = (
    "0001-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "1970-01-01T00:00:00Z",
    "2106-02-07T06:28:16Z",
    "2299-12-31T23:59:59Z",
    "9999-12-31T23:59:59.999999Z",
    "2026-02-30T00:00:00Z",
    "2026-11-01",
    "2026-11-01T00:00:00",
    "2026-11-01T00:00:00+23:59",
    "2026-11-01T00:00:00-99:99",
    "2026-W48-1",
    "1730000000",
    "now",
)


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, clickhouse_url: str) -> Deps:
    return wire(pool, busy(make_settings, clickhouse_url=clickhouse_url))


@pytest.fixture
async def theirs(pool: Pool, analytics: Analytics, anyone: Client, me: Client) -> Client:
    """Somebody else, with rows of the same days as mine."""
    other = await anyone.signed_in()
    now = datetime.now(UTC)
    made = [rows.spend(me.address, n, usd=MINE, block_time=now) for n in range(1, 4)]
    made += [rows.spend(other.address, n, usd=THEIRS, amount=777_770_000, block_time=now) for n in range(4, 7)]
    await rows.write(pool, *made)
    await persistence.ask_unpersisted(pool, older_than_s=-1)
    await work(pool, analytics)
    return other


async def ask(me: Client, path: str, **query: str) -> Got:
    text = "&".join(f"{quote(name)}={quote(value)}" for name, value in query.items())
    return await me.get(f"{path}?{text}")


def harmless(got: Got, other: Client) -> None:
    """Refused by name or answered, and nothing in it is another user's."""
    assert got.status in {200, 400, 404}, (got.status, got.body[:500])
    assert other.address.encode() not in got.body
    assert b"777.77" not in got.body
    if got.status != 200:
        problem = got.json
        assert got.headers["Content-Type"] == "application/problem+json"
        assert problem["detail"]
        assert not {"DB::Exception", "SELECT", "asyncpg", "Traceback"} & set(problem["detail"].split())


@pytest.mark.parametrize("path", ROUTES)
async def test_texts_in_any_parameter_are_refused_or_mean_nothing(me: Client, theirs: Client, path: str) -> None:
    needed = {"timeframe": "day"} if path.endswith("trends") else {}
    for name in NAMES:
        for text in (*TEXTS, theirs.address):
            harmless(await ask(me, path, **{**needed, name: text}), theirs)


async def test_moments_of_any_kind_in_any_order_are_refused_or_answered(me: Client, theirs: Client) -> None:
    for timeframe in ("hour", "day", "week", "month", "year"):
        for since in MOMENTS:
            for until in (None, MOMENTS[0], MOMENTS[5], since):
                query = {"timeframe": timeframe, "from": since} | ({} if until is None else {"to": until})
                harmless(await ask(me, "/v1/analytics/trends", **query), theirs)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}, "earlier than `to`"),
        ({"from": "2000-01-01T00:00:00Z", "to": "2026-11-01T00:00:00Z"}, "shorter range"),
        ({"from": "0001-01-01T00:00:00Z"}, "from 1971 to 2199"),
    ],
)
async def test_ranges_that_are_reversed_or_huge_are_refused_with_what_to_do(
    me: Client, theirs: Client, query: dict[str, str], words: str
) -> None:
    got = await ask(me, "/v1/analytics/trends", timeframe="day", **query)
    assert (got.status, got.json["code"]) == (400, "invalid_request")
    assert words in got.json["detail"]


async def test_categories_of_nobody_and_of_others_are_empty(me: Client, theirs: Client) -> None:
    made = await theirs.post("/v1/categories", {"name": "Secret", "description": "", "colorHex": "#FF0000"})
    for id_ in ("00000000-0000-4000-8000-0000000000ff", made.json["id"]):
        got = await ask(me, "/v1/analytics/trends", timeframe="day", categoryIds=id_)
        assert (got.status, got.json["data"]) == (200, [])
        assert b"Secret" not in got.body
    many = ",".join(f"00000000-0000-4000-8000-{number:012x}" for number in range(200))
    assert (await ask(me, "/v1/analytics/trends", timeframe="day", categoryIds=many)).status == 400


async def test_cursor_of_another_user_leads_through_ones_own_rows_only(me: Client, theirs: Client) -> None:
    cursor = (await theirs.get("/v1/transactions?limit=1")).json["nextCursor"]
    got = await ask(me, "/v1/transactions", cursor=cursor)
    assert got.status == 200
    harmless(got, theirs)
    assert {row["amount"]["usd"] for row in got.json["data"]} <= {"12.50"}
    id_ = (await theirs.get("/v1/transactions?limit=1")).json["data"][0]["id"]
    assert (await me.get(f"/v1/transactions/{id_}")).status == 404


@pytest.mark.parametrize(
    "zone",
    [
        "",
        "Mars/Olympus",
        "UTC'; DROP TABLE users; --",
        "../../etc/passwd",
        "Europe/../../../etc/passwd",
        "/etc/localtime",
        "\x00",
        "UTC\x00",
        "Etc/GMT+99",
        "posixrules",
        "localtime",
        "Europe/Berlin' , 'x",
        "a" * 5000,
    ],
)
async def test_absurd_time_zone_never_reaches_a_figure(me: Client, theirs: Client, zone: str) -> None:
    changed = await me.call("PATCH", "/v1/me", json={"timeZone": zone})
    assert changed.status in {200, 400}
    for path in ROUTES:
        got = await ask(me, path, **({"timeframe": "day"} if path.endswith("trends") else {}))
        assert got.status == 200
        harmless(got, theirs)


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    path=st.sampled_from(ROUTES),
    query=st.dictionaries(
        st.sampled_from(NAMES),
        # No surrogates: they have no bytes.
        st.one_of(st.text(st.characters(codec="utf-8"), max_size=40), st.sampled_from((*SHORT, *MOMENTS))),
        max_size=4,
    ),
)
async def test_any_query_at_all_is_harmless(me: Client, theirs: Client, path: str, query: dict[str, str]) -> None:
    harmless(await ask(me, path, **query), theirs)


async def test_after_all_that_the_figures_are_what_they_were(me: Client, theirs: Client) -> None:
    for text in TEXTS:
        await ask(me, "/v1/analytics/trends", timeframe="year", categoryIds=text)
    whole: Any = (await me.get("/v1/analytics/trends?timeframe=year")).json["data"]
    assert [(row["totalSpent"], row["transactionCount"]) for row in whole] == [("37.50", 3)]
