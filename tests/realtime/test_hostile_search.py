"""Hostile filters of history, search and exports: a problem or nothing, never another's row, never an error of ours."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

import orjson
import pytest

from handlers.deps import Deps
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime.documents import work
from tests.realtime.rows import SHOP, index, spend, write
from tests.realtime.served import Client, serving
from tests.realtime.test_rest_exports import KEY
from tests.realtime.wiring import busy, wire

ROUTES = ("/v1/transactions?", "/v1/transactions/export?format=csv&", "/v1/transactions/export?format=ndjson&")
TEXTS = [
    "'",
    "''",
    '"',
    "\\",
    "\\'; DROP TABLE transactions; --",
    "' OR '1'='1",
    "' UNION SELECT * FROM users --",
    "$1",
    "$$x$$",
    "%(user)s",
    "%s%n%x",
    "{user}",
    "{0.__class__}",
    "%",
    "%%%",
    "_",
    "__",
    "*",
    "secre%",
    "secre_",
    "se*",
    "se?ret",
    ".*",
    "(?i)secret|",
    "a" * 256,
    "0x",
    "0x" + "f" * 64,
    "0x" + "0" * 40,
    "0X" + "A" * 8,
    "{}",
    "[]",
    "NULL",
    "null",
    "NaN",
    "-1",
    "1e309",
    "ﷺ" * 14,
    "é" * 128,
    "ß" * 100,
    "İ" * 100,
    "𝕊𝕖𝕔𝕣𝕖𝕥",
    "買" * 100,
    "👩‍👩‍👧‍👦",
    " ".join(string.ascii_lowercase),
    " ".join(["aaaa"] * 50),
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "<script>alert(1)</script>",
]
REFUSED_TEXTS = [
    "",
    "a\x00b",
    "\x00",
    "a\nb",
    "a\r\nb",
    "\x1b[31m",
    "\u202e",
    "a" * 257,
]
MALFORMED = [
    "chain=0",
    "chain=-1",
    "chain=1e3",
    "chain=99999999999999999999999",
    "chain=31337&chain=1",
    "chain=%27",
    "type=%27",
    "type=spend%27",
    "type=spend%00",
    "account=%27+OR+1%3D1",
    "token=%27",
    "token=0x" + "g" * 40,
    "token=0x" + "0" * 41,
    "category=%27",
    "category=00000000-0000-0000-0000-00000000000g",
    "from=2026-11-01",
    "from=9999-12-31T23:59:59-23:59",
    "from=0001-01-01T00:00:00%2B23:59",
    "from=%27",
    "to=infinity",
    "to=-infinity",
    "min=%27",
    "min=1e400",
    "min=NaN",
    "min=Infinity",
    "max=-0.1",
    "max=" + "9" * 41,
    "max=0." + "1" * 19,
    "nonsense=1",
    "user=0x" + "1" * 40,
    "mode=%27",
]


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    plenty = {"export_limit_per_minute": 1_000_000, "export_rows": 50}
    return wire(pool, busy(make_settings, seal_keys=[KEY], **plenty))


@dataclass
class Stage:
    """Two people with a secret each, which is in every field that is searched."""

    me: Client
    other: Client
    pool: Pool
    mine: frozenset[str]
    theirs: frozenset[str]

    async def rows(self, path: str) -> list[str] | None:
        """Ids that an answer holds; None for a refusal. Whatever comes is of ours and says nothing of theirs."""
        got = await self.me.get(path)
        assert got.status < 500, (path, got.body)
        assert self.other.address.encode() not in got.body, path
        assert b"theirsecret" not in got.body, path
        if got.status != 200:
            assert got.headers["Content-Type"] == "application/problem+json", path
            assert got.json["code"], path
            return None
        if "csv" in path:
            ids = [line.partition(",")[0] for line in got.body.decode("utf-8-sig").splitlines()[1:]]
        elif "ndjson" in path:
            ids = [orjson.loads(line)["id"] for line in got.body.splitlines()]
        else:
            ids = [each["id"] for each in got.json["data"]]
        assert set(ids) <= self.mine, path
        return ids


@pytest.fixture
async def stage(anyone: Client, pool: Pool) -> Stage:
    people = [await anyone.signed_in() for _ in range(2)]
    ids = []
    for number, (client, word) in enumerate(zip(people, ("mysecret", "theirsecret"), strict=True), 1):
        rows = [spend(client.address, 10 * number + k, bucket=f"Bucket {word}") for k in range(3)]
        await write(pool, *rows)
        await client.call("PUT", f"/v1/contacts/{SHOP}", json={"label": f"Shop {word}"})
        category = (await client.post("/v1/categories", {"name": f"Category {word}"})).json["id"]
        for row in rows:
            await client.call("PUT", f"/v1/transactions/{row.id}/memo", json={"memo": f"Memo {word}"})
            await client.call("PUT", f"/v1/transactions/{row.id}/category", json={"categoryId": category})
        await index(pool, client.address, seal_keys=[KEY])
        ids.append(frozenset(row.id for row in rows))
    return Stage(people[0], people[1], pool, *ids)


def query(**values: Any) -> str:
    return urlencode(values)


async def test_hostile_words_find_nothing_or_ones_own(stage: Stage) -> None:
    for route in ROUTES:
        for text in TEXTS:
            await stage.rows(route + query(q=text))
            if route == ROUTES[0]:
                await stage.rows(route + query(bucket=text))
    for text in TEXTS[:12]:
        for name in ("cursor", "token", "category", "from", "min", "chain", "type"):
            await stage.rows(ROUTES[0] + query(**{name: text}))
    assert len(await stage.rows("/v1/transactions?q=mysecret") or ()) == 3
    assert await stage.pool.fetchval("SELECT count(*) FROM transactions") == 6


async def test_wildcards_are_no_wildcards(stage: Stage) -> None:
    for text in ("%", "_", "*", "%secret", "mysecre_", "my%t", "mys*t", "."):
        ids = await stage.rows("/v1/transactions?" + query(q=text))
        words = [word for word in text.replace("%", " ").replace("_", " ").replace("*", " ").split() if word != "."]
        if not words:
            assert ids == [], text
        assert await stage.rows("/v1/transactions?" + query(bucket=text)) == [], text


async def test_what_is_no_text_is_refused(stage: Stage) -> None:
    for route in ROUTES:
        for text in REFUSED_TEXTS:
            written = quote(text)
            assert await stage.rows(f"{route}q={written}") is None, text
        for part in MALFORMED:
            assert await stage.rows(route + part) is None, part


async def test_ranges_that_hold_nothing_hold_nothing(stage: Stage) -> None:
    empty = [
        "from=2027-01-01T00:00:00Z&to=2026-01-01T00:00:00Z",
        "from=2026-11-01T00:00:00Z&to=2026-11-01T00:00:00Z",
        "to=0001-01-02T00:00:00Z",
        "from=9999-12-30T00:00:00Z",
        "min=2&max=1",
        "min=" + "9" * 22,
        "chain=9223372036854775807",
        "category=ffffffff-ffff-ffff-ffff-ffffffffffff",
        "bucket=" + "x" * 256,
        "token=0x" + "0" * 40,
    ]
    for route in ROUTES:
        for part in empty:
            assert await stage.rows(route + part) == [], part
        assert len(await stage.rows(route + "from=0001-01-01T00:00:00Z&to=9999-12-31T00:00:00Z&min=0") or ()) == 3


async def test_others_ids_open_nothing(stage: Stage) -> None:
    theirs = sorted(stage.theirs)
    hashes = [id_.split(":")[1] for id_ in theirs]
    category = (await stage.other.get("/v1/categories")).json["data"][-1]["id"]
    bucket = (await stage.other.get(f"/v1/transactions/{theirs[0]}")).json["bucketId"]
    for route in ROUTES:
        for words in (*theirs, *hashes, stage.other.address, stage.other.address[:12], "theirsecret", "Memo theirs"):
            assert await stage.rows(route + query(q=words)) == [], words
        assert await stage.rows(route + query(category=category)) == []
        assert await stage.rows(route + query(bucket=bucket)) == []
    for id_ in theirs:
        assert await stage.rows(f"/v1/transactions/{id_}") is None


async def test_others_cursors_are_places_in_ones_own_list(stage: Stage) -> None:
    cursor = (await stage.other.get("/v1/transactions?limit=1")).json["nextCursor"]
    assert len(await stage.rows(f"/v1/transactions?cursor={cursor}") or ()) == 3  # theirs is later than all of mine
    exports = await stage.other.get("/v1/me/export")
    assert exports.status == 202
    listed = (await stage.other.get("/v1/exports")).json["data"]
    for path in (
        f"/v1/exports/{listed[0]['id']}",
        f"/v1/exports?cursor={cursor}",
        f"/v1/transactions?cursor={cursor}x",
    ):
        assert await stage.rows(path) is None, path
    rng = random.Random(7)
    for _ in range(50):
        at = rng.randrange(len(cursor))
        forged = cursor[:at] + rng.choice(string.ascii_letters) + cursor[at + 1 :]
        if forged != cursor:
            assert await stage.rows(f"/v1/transactions?cursor={forged}") is None


async def test_what_is_random_is_no_error_of_ours(stage: Stage) -> None:
    rng = random.Random(11)
    alphabet = [chr(n) for n in (*range(0x20, 0x7F), 0xE9, 0x3B1, 0x5D0, 0x8CB7, 0x1F600, 0x0, 0xA, 0x200D, 0x300)]
    names = (
        "q",
        "bucket",
        "category",
        "token",
        "from",
        "to",
        "min",
        "max",
        "chain",
        "type",
        "account",
        "cursor",
        "limit",
    )
    for _ in range(80):
        picked = {rng.choice(names): "".join(rng.choices(alphabet, k=rng.randrange(1, 40))) for _ in range(3)}
        await stage.rows("/v1/transactions?" + query(**picked))


async def test_documents_hold_to_the_same(stage: Stage, deps: Deps) -> None:
    """The job looks for the words again: it must not find more than the answer at once."""
    few = replace(deps, settings=deps.settings.model_copy(update={"export_rows": 1}))
    async with serving(few) as served:
        me = Client(served.session, served.base, stage.me.token)
        asked = [f"/v1/transactions/export?format={format_}&q=mysecret" for format_ in ("csv", "ndjson")]
        exports = [(await me.get(path)).json for path in asked]
        await work(few)
        for export in exports:
            state = (await me.get(f"/v1/exports/{export['id']}")).json
            body = (await served.get(state["url"])).body
            assert state["rows"] == 3
            assert b"theirsecret" not in body
            assert stage.other.address.encode() not in body
            assert (await stage.other.get(f"/v1/exports/{export['id']}")).status == 404
        assert (await me.get("/v1/transactions/export?format=csv&q=theirsecret")).status == 200


async def test_hostile_export_parameters(stage: Stage) -> None:
    for path in (
        "/v1/transactions/export",
        "/v1/transactions/export?format=",
        "/v1/transactions/export?format=csv%00",
        "/v1/transactions/export?format=CSV",
        "/v1/transactions/export?format=csv&format=csv",
        "/v1/transactions/export?format=../../etc/passwd",
        "/v1/transactions/export/columns?format=%27",
        "/v1/reports/%27%20OR%201=1",
        "/v1/reports/2026-11?format=exe",
        "/v1/exports?cursor=%27",
        "/v1/exports?limit=0",
        "/v1/exports/%2e%2e%2f%2e%2e",
        "/v1/exports/00000000-0000-4000-8000-000000000000/file?until=0&signature=",
        "/v1/exports/00000000-0000-4000-8000-000000000000/file?until=99999999999999999999&signature=x",
        "/v1/exports/00000000-0000-4000-8000-000000000000/file?until=-1&signature=x",
        "/v1/exports/00000000-0000-4000-8000-000000000000/file?until=1&signature=" + "a" * 129,
        "/v1/exports/00000000-0000-4000-8000-000000000000/file",
    ):
        assert await stage.rows(path) is None, path
