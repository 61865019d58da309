from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from config.settings import Settings
from handlers.deps import Deps
from handlers.people import CONTACTS_MAX
from store.postgres import Pool
from store.sealed import KeyRing
from tests.conftest import MakeSettings
from tests.factories import make_address
from tests.realtime.conform import openapi
from tests.realtime.served import Client, Got
from tests.realtime.wiring import busy, wire
from tests.store.test_sealed import key
from tests.waiting import until

KEYS = (f"k1:{key(1)}",)
SHOP = make_address("shop")


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    return wire(pool, busy(make_settings, seal_keys=KEYS))


async def patch(client: Client, json: Any, **options: Any) -> Got:
    return await client.call("PATCH", "/v1/me", json=json, **options)


async def told(client: Client) -> list[tuple[str, Any]]:
    return [(each["event"], each["payload"]) for each in (await client.get("/v1/events")).json["data"]]


EVERYTHING = {
    "displayName": "Ann",
    "avatarUrl": "https://a.example/ann.png",
    "timeZone": "America/St_Johns",
    "locale": "de-AT",
    "riskProfile": "aggressive",
    "aiConsent": True,
    "compareConsent": True,
    "monthlyBudget": "1250.50",
    "alertThresholds": [25, 90, 150],
    "quietHours": {"start": "22:30", "end": "06:00"},
    "hideAmounts": True,
    "digest": "daily",
}


async def test_a_new_user_has_the_defaults(me: Client) -> None:
    assert (await me.get("/v1/me")).json == {
        "address": me.address,
        "displayName": None,
        "avatarUrl": None,
        "timeZone": "UTC",
        "locale": "en",
        "riskProfile": "moderate",
        "aiConsent": False,
        "compareConsent": False,
        "monthlyBudget": None,
        "alertThresholds": [50, 80, 100],
        "quietHours": None,
        "hideAmounts": False,
        "digest": "weekly",
        "email": None,
    }


async def test_every_field_can_be_changed_and_only_those_sent_are(me: Client) -> None:
    before = (await me.get("/v1/me")).json
    changed = await patch(me, {**EVERYTHING, "email": "Ann.E@example.com"})
    assert changed.status == 200, changed.body
    assert changed.json == {**before, **EVERYTHING, "email": "A***@example.com"}
    assert (await me.get("/v1/me")).json == changed.json
    assert (await patch(me, {"locale": "PT-br"})).json == {**changed.json, "locale": "pt-BR"}
    for name, value in EVERYTHING.items():
        other = before[name] if before[name] is not None else None
        assert (await patch(me, {name: other})).json[name] == before[name], name
        assert (await patch(me, {name: value})).json[name] == value, name
    assert (await patch(me, {})).json == {**changed.json, "locale": "de-AT"}


WRONG: list[tuple[Any, str]] = [
    ({"timeZone": "Mars/Olympus"}, "/timeZone"),
    ({"timeZone": "../../etc/passwd"}, "/timeZone"),
    ({"timeZone": None}, "/timeZone"),
    ({"locale": "english language"}, "/locale"),
    ({"locale": "e"}, "/locale"),
    ({"riskProfile": "yolo"}, "/riskProfile"),
    ({"aiConsent": "yes"}, "/aiConsent"),
    ({"aiConsent": 1}, "/aiConsent"),
    ({"aiConsent": None}, "/aiConsent"),
    ({"compareConsent": None}, "/compareConsent"),
    ({"compareConsent": 1}, "/compareConsent"),
    ({"monthlyBudget": 12.5}, "/monthlyBudget"),
    ({"monthlyBudget": "-1"}, "/monthlyBudget"),
    ({"monthlyBudget": "1.005"}, "/monthlyBudget"),
    ({"monthlyBudget": "1e3"}, "/monthlyBudget"),
    ({"monthlyBudget": "1" * 19}, "/monthlyBudget"),
    ({"alertThresholds": []}, "/alertThresholds"),
    ({"alertThresholds": list(range(1, 12))}, "/alertThresholds"),
    ({"alertThresholds": [80, 50]}, "/alertThresholds"),
    ({"alertThresholds": [50, 50]}, "/alertThresholds"),
    ({"alertThresholds": [0]}, "/alertThresholds/0"),
    ({"alertThresholds": [201]}, "/alertThresholds/0"),
    ({"alertThresholds": ["80"]}, "/alertThresholds/0"),
    ({"alertThresholds": None}, "/alertThresholds"),
    ({"quietHours": {"start": "22:00"}}, "/quietHours/end"),
    ({"quietHours": {"start": "22:00", "end": "24:00"}}, "/quietHours/end"),
    ({"quietHours": {"start": "22:00", "end": "22:00"}}, "/quietHours"),
    ({"displayName": "x" * 65}, "/displayName"),
    ({"displayName": 5}, "/displayName"),
    ({"avatarUrl": "http://a.example/x"}, "/avatarUrl"),
    ({"avatarUrl": "javascript:alert(1)"}, "/avatarUrl"),
    ({"avatarUrl": "https://a.example/" + "x" * 512}, "/avatarUrl"),
    ({"email": "ann"}, "/email"),
    ({"email": "ann@localhost"}, "/email"),
    ({"email": "ann@example.com\nBcc: all@example.com"}, "/email"),
    ({"email": "Ann <ann@example.com>"}, "/email"),
    ({"email": ""}, "/email"),
    ({"digest": None}, "/digest"),
    ({"address": SHOP}, "/address"),
    ({"revision": 7}, "/revision"),
    ([], ""),
]


async def test_what_can_not_be_is_refused_by_name_and_changes_nothing(me: Client) -> None:
    before = await me.get("/v1/me")
    for body, pointer in WRONG:
        also = {"displayName": "changed", **body} if isinstance(body, dict) else body
        got = await patch(me, also)
        assert got.status == 400, body
        assert pointer in [error["pointer"] for error in got.json["errors"]], body
    assert (await me.get("/v1/me")).body == before.body


async def test_a_display_name_is_made_safe_to_show(me: Client) -> None:
    assert (await patch(me, {"displayName": " Ann\u202e\x00\n  Example "})).json["displayName"] == "Ann Example"
    assert (await patch(me, {"displayName": "x" * 64 + "\u200b" * 60})).json["displayName"] == "x" * 64
    assert (await patch(me, {"displayName": " \u200b "})).json["displayName"] is None


async def test_if_match_leaves_a_record_alone_that_changed_meanwhile(me: Client) -> None:
    read = await me.get("/v1/me")
    tag = read.headers["ETag"]
    first = await patch(me, {"displayName": "Ann"}, headers={"If-Match": tag})
    assert first.status == 200
    assert first.headers["ETag"] not in {tag, ""}
    assert (await me.get("/v1/me")).headers["ETag"] == first.headers["ETag"]
    late = await patch(me, {"displayName": "Bob"}, headers={"If-Match": tag})
    assert (late.status, late.json["code"]) == (412, "precondition_failed")
    assert (await me.get("/v1/me")).json["displayName"] == "Ann"
    for stale in ("", "nonsense", f"W/{first.headers['ETag']}", f'"x", {tag}'):
        assert (await patch(me, {"displayName": "Bob"}, headers={"If-Match": stale})).status == 412, stale
    for good in ("*", f'"x", {first.headers["ETag"]}'):
        assert (await patch(me, {"displayName": "Ann"}, headers={"If-Match": good})).status == 200, good
    assert (await patch(me, {"displayName": "Bob"})).status == 200


async def test_of_two_changes_of_one_version_one_wins(me: Client) -> None:
    tag = (await me.get("/v1/me")).headers["ETag"]
    names = [f"name {number}" for number in range(6)]
    results = await asyncio.gather(*(patch(me, {"displayName": name}, headers={"If-Match": tag}) for name in names))
    assert sorted(got.status for got in results) == [200] + [412] * 5
    won = next(got.json["displayName"] for got in results if got.status == 200)
    assert (await me.get("/v1/me")).json["displayName"] == won


async def test_changes_of_different_fields_at_once_are_all_kept(me: Client, pool: Pool) -> None:
    changes: list[dict[str, object]] = [{name: value} for name, value in EVERYTHING.items()]
    results = await asyncio.gather(*(patch(me, change) for change in changes))
    assert {got.status for got in results} == {200}
    assert {name: (await me.get("/v1/me")).json[name] for name in EVERYTHING} == EVERYTHING
    assert await pool.fetchval("SELECT revision FROM users WHERE address = $1", me.address) == 1 + len(EVERYTHING)


async def test_a_field_sealed_anew_meanwhile_stays_so(me: Client, pool: Pool) -> None:
    """A change of key (store/reseal.py) does not take the lock of the log."""
    await patch(me, {"email": "ann@example.com"})
    anew = KeyRing.of(Settings(seal_keys=KEYS)).seal("ann@example.com", purpose="email", owner=me.address)
    async with pool.acquire() as conn:
        resealing = conn.transaction()
        await resealing.start()
        await conn.execute("UPDATE users SET email = $2 WHERE address = $1", me.address, anew)
        changing = asyncio.create_task(patch(me, {"displayName": "Ann"}))
        await until(lambda: waits(pool), what="the change waits for the row")
        await resealing.commit()
    assert (await changing).json["email"] == "a***@example.com"
    assert await pool.fetchval("SELECT email FROM users WHERE address = $1", me.address) == anew


async def waits(pool: Pool) -> bool:
    """Whether someone waits for a lock in this test's database."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await pool.fetchval(waiting))


async def test_the_tag_tells_apart_what_looks_the_same(me: Client, anyone: Client, pool: Pool) -> None:
    first = await patch(me, {"email": "ann@example.com"})
    second = await patch(me, {"email": "abe@example.com"})
    assert first.body == second.body
    assert first.headers["ETag"] != second.headers["ETag"]
    other = await anyone.signed_in()
    await pool.execute("UPDATE users SET revision = 5")
    assert (await me.get("/v1/me")).headers["ETag"] != (await other.get("/v1/me")).headers["ETag"]
    # What changes nothing makes no new version: not even the e-mail address is sealed again.
    tag = (await me.get("/v1/me")).headers["ETag"]
    assert (await patch(me, {"email": "abe@example.com", "timeZone": "UTC"})).headers["ETag"] == tag


async def test_an_email_address_is_sealed_and_never_given_back(
    me: Client, pool: Pool, deps: Deps, capfd: pytest.CaptureFixture[str]
) -> None:
    got = await patch(me, {"email": "secret.name@example.com"})
    assert got.json["email"] == "s***@example.com"
    sealed = await pool.fetchval("SELECT email FROM users WHERE address = $1", me.address)
    assert b"secret" not in sealed
    assert KeyRing.of(deps.settings).unseal(sealed, purpose="email", owner=me.address) == "secret.name@example.com"
    kept = await pool.fetch("SELECT metadata, payload FROM audit_logs LEFT JOIN user_log ON true")
    assert "secret" not in repr(kept)
    said = capfd.readouterr()
    assert "secret" not in said.out + said.err
    assert (await patch(me, {"email": None})).json["email"] is None
    assert await pool.fetchval("SELECT email FROM users WHERE address = $1", me.address) is None


async def test_an_email_address_whose_key_is_lost_is_still_shown_to_be_there(
    me: Client, pool: Pool, deps: Deps
) -> None:
    lost = KeyRing.of(Settings(seal_keys=[f"lost:{key(9)}"])).seal("a@b.org", purpose="email", owner=me.address)
    await pool.execute("UPDATE users SET email = $2 WHERE address = $1", me.address, lost)
    assert (await me.get("/v1/me")).json["email"] == "***"
    assert (await patch(me, {"displayName": "Ann"})).json["email"] == "***"
    assert await pool.fetchval("SELECT email FROM users WHERE address = $1", me.address) == lost
    assert (await patch(me, {"email": "a@b.org"})).json["email"] == "a***@b.org"


async def test_budgets_are_told_anew_when_the_months_bounds_or_the_total_move(me: Client, pool: Pool) -> None:
    await patch(me, {"displayName": "Ann", "alertThresholds": [10], "hideAmounts": True})
    assert await told(me) == []
    await patch(me, {"monthlyBudget": "100"})
    await patch(me, {"timeZone": "Pacific/Kiritimati"})
    await patch(me, {"timeZone": "Pacific/Kiritimati", "monthlyBudget": "100.00"})
    events = await told(me)
    assert [event for event, _ in events] == ["budget_update"] * 2
    [first], [second] = (payload["budgets"] for _, payload in events)
    assert (first["scope"], first["budget"]) == ("total", "100.00")
    assert first["periodStart"].endswith("T00:00:00.000Z")
    assert second["periodStart"].endswith("T10:00:00.000Z")
    assert [payload["seq"] for _, payload in events] == [1, 2]


async def test_a_change_that_is_refused_tells_nobody(me: Client) -> None:
    assert (await patch(me, {"timeZone": "Asia/Tokyo"}, headers={"If-Match": '"0-0"'})).status == 412
    assert await told(me) == []
    assert [entry["action"] for entry in (await me.get("/v1/me/audit")).json["data"]] == ["sign_in"]


async def test_a_change_is_noted_by_fields_without_what_they_hold(me: Client) -> None:
    await patch(me, {"quietHours": {"start": "22:00", "end": "07:00"}, "email": "ann@example.com", "aiConsent": True})
    entry = (await me.get("/v1/me/audit")).json["data"][0]
    assert (entry["action"], entry["metadata"]) == ("profile_changed", {"fields": ["aiConsent", "email", "quietHours"]})


async def test_nobody_changes_another_record(me: Client, anyone: Client) -> None:
    other = await anyone.signed_in()
    before = (await other.get("/v1/me")).body
    await patch(me, EVERYTHING)
    assert (await other.get("/v1/me")).body == before
    assert (await patch(anyone, EVERYTHING)).status == 401


async def name(client: Client, address: str, label: Any) -> Got:
    return await client.call("PUT", f"/v1/contacts/{address}", json={"label": label})


async def test_contacts_are_named_read_and_forgotten(me: Client, anyone: Client) -> None:
    other = await anyone.signed_in()
    got = await name(me, "0X" + SHOP[2:].upper(), " Corner\u202e  shop ")
    assert (got.status, got.json["address"], got.json["label"]) == (200, SHOP, "Corner shop")
    assert (await me.get(f"/v1/contacts/{SHOP}")).json == got.json
    assert (await me.get("/v1/contacts")).json["data"] == [got.json]
    assert (await other.get("/v1/contacts")).json["data"] == []
    assert (await other.get(f"/v1/contacts/{SHOP}")).status == 404
    assert (await other.call("DELETE", f"/v1/contacts/{SHOP}")).status == 404
    assert (await name(me, SHOP, "Grocer")).json["createdAt"] == got.json["createdAt"]
    assert (await me.call("DELETE", f"/v1/contacts/{SHOP}")).status == 204
    assert (await me.get(f"/v1/contacts/{SHOP}")).status == 404
    assert (await me.call("DELETE", f"/v1/contacts/{SHOP}")).status == 404


async def test_contacts_page_by_address(me: Client) -> None:
    addresses = sorted(make_address(number) for number in range(5))
    for address in addresses:
        await name(me, address, "x")
    found, path = [], "/v1/contacts?limit=2"
    while path:
        got = await me.get(path)
        found += [each["address"] for each in got.json["data"]]
        path = f"/v1/contacts?limit=2&cursor={got.json['nextCursor']}" if got.json["hasMore"] else ""
    assert found == addresses


async def test_a_contact_has_an_address_and_a_label_that_shows_something(me: Client) -> None:
    for label in ("", " \u200b ", "x" * 65, None, 5):
        got = await name(me, SHOP, label)
        assert (got.status, got.json["errors"][0]["pointer"]) == (400, "/label"), label
    for address in ("0x12", "ann.eth", "0x" + "g" * 40, "0x" + "a" * 41):
        for got in (await name(me, address, "x"), await me.get(f"/v1/contacts/{address}")):
            assert (got.status, got.json["errors"][0]["pointer"]) == (400, "/path/address"), address


async def test_contacts_are_bounded_also_when_named_at_once(me: Client, pool: Pool) -> None:
    rows = [(me.address, make_address("contact", number)) for number in range(CONTACTS_MAX - 2)]
    await pool.executemany("INSERT INTO contacts (user_address, address, label) VALUES ($1, $2, 'x')", rows)
    results = await asyncio.gather(*(name(me, make_address(number), "new") for number in range(6)))
    assert sorted(got.status for got in results) == [200, 200, 409, 409, 409, 409]
    assert (await name(me, rows[0][1], "again")).status == 200


def test_the_document_says_what_a_change_takes(anyone: Client) -> None:
    operation = openapi()["paths"]["/v1/me"]["patch"]
    assert "412" in operation["responses"]
    assert "304" not in operation["responses"]
    assert {"If-Match"} == {each["name"] for each in operation["parameters"] if each["in"] == "header"}
    schema = openapi()["components"]["schemas"]["MePatch"]
    assert "required" not in schema
    assert not any("default" in facts for facts in schema["properties"].values())
    assert b"null" not in orjson.dumps(schema["properties"]["timeZone"])
