"""Shared money over REST and sockets, and as an attacker: who is no member finds nothing, before, after and at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest

from handlers.chain_events import ChainEvent
from handlers.deps import Deps
from handlers.rules.ids import bucket_id
from realtime.rest import v1
from store.feed import Publisher
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.exact import exact
from tests.handlers.ledger import Bench, set_budget
from tests.handlers.scripted import SHOP, WALLET, Script, created, deposit, fund, make_chain, spend, transfer
from tests.handlers.test_sharing import added, removed
from tests.realtime.served import Client, Got
from tests.realtime.wiring import busy, wire
from watchers.devnet.listener import Listener
from watchers.devnet.view import apply_all, differences
from watchers.ingest import writer

CHAIN = make_chain(31337, name="devnet")
FOOD = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
async def deps(pool: Pool, make_settings: MakeSettings) -> AsyncIterator[Deps]:
    settings = busy(make_settings, seal_keys=("k1:" + "A" * 43 + "=",))
    publisher = Publisher(settings.redis_url)
    yield replace(wire(pool, settings), chains={CHAIN.id: CHAIN}, publisher=publisher)
    await publisher.close()


@dataclass
class House:
    """Alice owns `food` and `rent`; Bob and Carol share food; Dave is a stranger."""

    bench: Bench
    alice: Client
    bob: Client
    carol: Client
    dave: Client
    script: Script = field(default_factory=Script)

    def id(self, name: str) -> str:
        return bucket_id(CHAIN.id, WALLET, self.alice.address, name.encode())

    async def block(self, *events: ChainEvent) -> None:
        await self.bench.apply(self.script.block(events))

    async def let(self, *clients: Client) -> None:
        await self.block(*(added(self.alice.address, each.address) for each in clients))

    async def spend(self, amount: int, by: Client, *, bucket: str = "food") -> None:
        await self.block(transfer(WALLET, SHOP, amount), spend(self.alice.address, bucket, amount, spender=by.address))


@pytest.fixture
async def house(anyone: Client, deps: Deps) -> AsyncIterator[House]:
    alice, bob, carol, dave = [await anyone.signed_in() for _ in range(4)]
    async with writer(deps, CHAIN) as ledger:
        made = House(Bench(deps, CHAIN, ledger), alice, bob, carol, dave)
        who = alice.address
        await made.block(created(who, "food", 10_000), created(who, "rent", 5_000), deposit(who, 9_000))
        await made.block(fund(who, "food", 3_000), fund(who, "rent", 2_000))
        yield made


async def data(client: Client, path: str) -> list[dict[str, Any]]:
    got = await client.get(path)
    assert got.status == 200, got.body
    found: list[dict[str, Any]] = got.json["data"]
    return found


async def test_members_list_the_bucket_by_their_role_and_read_who_spent(house: House) -> None:
    await house.let(house.bob, house.carol)
    await house.spend(100, house.bob)
    await house.spend(7, house.alice)
    await house.spend(30, house.bob)
    assert [(b["name"], b["role"]) for b in await data(house.alice, "/v1/buckets")] == [
        (name, "owner") for _, name in sorted((house.id(name), name) for name in ("food", "rent"))
    ]
    assert await data(house.alice, "/v1/buckets?role=delegate") == await data(house.bob, "/v1/buckets?role=owner") == []
    (bucket,) = await data(house.carol, "/v1/buckets?role=delegate&chain=31337")
    assert (await house.carol.get(f"/v1/buckets/{house.id('food')}")).json == bucket
    assert (await house.carol.get("/v1/snapshot")).json["buckets"] == [bucket]
    bob = next(each for each in bucket["members"] if each["address"] == house.bob.address)
    assert ([each["raw"] for each in bob["spent"]], bob["count"]) == (["130"], 2)
    path = f"/v1/buckets/{house.id('food')}/spends"
    seen = {client.address: await data(client, path) for client in (house.alice, house.bob, house.carol)}
    assert seen[house.alice.address] == seen[house.bob.address] == seen[house.carol.address]
    spends = seen[house.carol.address]
    assert [(s["spender"], s["amount"]["raw"], s["recipient"], s["role"]) for s in spends] == [
        (house.bob.address, "30", SHOP, "delegate"),
        (house.alice.address, "7", SHOP, "owner"),
        (house.bob.address, "100", SHOP, "delegate"),
    ]
    assert not {"memo", "category"} & spends[0].keys()
    assert await data(house.carol, path + f"?spender={house.alice.address.upper().replace('0X', '0x')}") == [spends[1]]
    moment = spends[1]["blockTime"]
    assert await data(house.carol, path + f"?from={moment}") == spends[:2]
    assert await data(house.carol, path + f"?to={moment}") == spends[2:]
    first = await house.carol.get(path + "?limit=2")
    assert first.json["hasMore"]
    rest = await data(house.carol, path + f"?limit=2&cursor={first.json['nextCursor']}")
    assert first.json["data"] + rest == spends


async def test_what_the_owner_made_of_a_spend_is_the_owners_alone(house: House, deps: Deps) -> None:
    await set_budget(deps, house.alice.address, FOOD, Decimal("77.77"))
    await house.let(house.bob)
    await house.spend(100, house.bob)
    (row,) = [each for each in await data(house.alice, "/v1/transactions") if each["type"] == "spend"]
    assert (await house.alice.call("PUT", f"/v1/transactions/{row['id']}/memo", json={"memo": "a secret"})).status < 300
    answer = await house.alice.call("PUT", f"/v1/transactions/{row['id']}/category", json={"categoryId": FOOD})
    assert answer.status == 200
    path = f"/v1/buckets/{house.id('food')}"
    read = [
        (await house.bob.get(each)).body
        for each in ("/v1/snapshot", "/v1/events", "/v1/buckets", path, path + "/spends")
    ]
    said = b"".join(read)
    for secret in (b"a secret", b"rent", b"77.77", b"unallocated", b"Food & Dining"):
        assert secret not in said, secret


async def gone(client: Client, house: House, *, headers: dict[str, str] | None = None) -> list[Got]:
    path = f"/v1/buckets/{house.id('food')}"
    return [
        await client.get(each, headers=headers or {}) for each in (path, path + "/spends", path + "/spends?limit=1")
    ]


async def test_who_is_no_member_finds_nothing_before_and_after(house: House) -> None:
    """Ids follow from public facts: that a bucket exists must not follow from an answer."""
    nobody = [
        await house.dave.get(f"/v1/buckets/{key}")
        for key in (house.id("food"), house.id("none"), "x", "%00", "a" * 600)
    ]
    assert {got.status for got in nobody} == {404}
    assert len({(got.json["code"], got.json["detail"]) for got in nobody}) == 1
    await house.let(house.bob)
    await house.spend(100, house.bob)
    assert {got.status for got in await gone(house.dave, house)} == {404}
    assert {got.status for got in await gone(house.carol, house)} == {404}
    other = f"/v1/buckets/{house.id('rent')}"
    assert [(await house.bob.get(each)).status for each in (other, other + "/spends")] == [404, 404]


async def test_a_former_member_finds_nothing_at_once_whatever_they_kept(house: House) -> None:
    await house.let(house.bob, house.carol)
    await house.spend(100, house.bob)
    await house.spend(50, house.carol)
    path = f"/v1/buckets/{house.id('food')}"
    tag = (await house.bob.get(path)).headers["ETag"]
    assert (await house.bob.get(path, headers={"If-None-Match": tag})).status == 304
    page = (await house.bob.get(path + "/spends?limit=1")).json["nextCursor"]
    snapshot = (await house.bob.get("/v1/snapshot")).json
    await house.block(removed(house.alice.address, house.bob.address))
    for headers in ({}, {"If-None-Match": tag}, {"If-None-Match": "*"}):
        assert {got.status for got in await gone(house.bob, house, headers=headers)} == {404}
    assert (await house.bob.get(path + f"/spends?limit=1&cursor={page}")).status == 404
    await house.spend(999, house.carol)
    await house.block(fund(house.alice.address, "food", 321))
    assert await data(house.bob, "/v1/buckets") == []
    assert (await house.bob.get("/v1/snapshot")).json["buckets"] == []
    told = (await house.bob.get(f"/v1/events?after={snapshot['seq']}")).json["data"]
    assert [each["event"] for each in told] == ["bucket_update", "notification"]
    assert told[0]["payload"]["removed"] is True
    # The cursor of one bucket leads nowhere in another, and the own transaction stays.
    assert (await house.carol.get(f"{path}x/spends?cursor={page}")).status == 400
    assert [(each["role"], each["bucket"]) for each in await data(house.bob, "/v1/transactions")] == [
        ("delegate", "food")
    ]
    spends = await data(house.alice, path + "/spends")
    assert [each["role"] for each in spends] == ["delegate", "delegate", "former"]


READERS = (
    *("/v1/accounts", "/v1/budgets", "/v1/budgets/status", "/v1/goals", "/v1/savings", "/v1/analytics/buckets"),
    *(each.path.replace("{chain}", CHAIN.name) for each in v1.ROUTES),
)


async def test_a_shared_bucket_is_in_no_figure_of_a_delegate_s_own(house: House) -> None:
    """Accounts, budgets, goals, analytics and the first front end's routes count what the user owns."""

    async def read() -> dict[str, Any]:
        got = {path: await house.bob.get(path.replace("{address}", house.bob.address)) for path in READERS}
        return {path: (each.status, _still(each.json)) for path, each in got.items()}

    before = await read()
    await house.let(house.bob)
    await house.spend(60, house.alice)
    after = await read()
    assert {status for status, _ in after.values()} == {200}
    assert after == before
    link = {"kind": "bucket", "chainId": CHAIN.id, "id": house.id("food")}
    goal = {"name": "Bike", "targetAmount": "10", "link": link}
    assert (await house.bob.post("/v1/goals", goal)).status in {404, 409, 400}
    thought = {"chainId": CHAIN.id, "bucket": "food", "token": CHAIN.tokens[0].address, "amount": "1"}
    assert (await house.bob.post("/v1/budgets/simulate", thought)).status == 404


def _still(body: Any) -> Any:
    """An answer without what says how far chains are, and when it was made."""
    if isinstance(body, dict):
        return {key: _still(each) for key, each in body.items() if key not in {"asOfBlock", "timestamp", "generatedAt"}}
    return [_still(each) for each in body] if isinstance(body, list) else body


async def test_sockets_of_all_members_follow_and_a_stranger_hears_nothing(house: House) -> None:
    """The official client of the owner, two delegates and a stranger, through removal and a reorg."""
    clients = [house.alice, house.bob, house.carol, house.dave]
    async with AsyncExitStack() as stack:
        ears = [await stack.enter_async_context(Listener(each.base, each.token)) for each in clients]
        for ear in ears:
            await ear.until(lambda ear=ear: ear.events("snapshot"), what="the first snapshot")  # type: ignore[misc]

        async def level() -> None:
            for client, ear in zip(clients, ears, strict=True):
                fresh = exact((await client.get("/v1/snapshot")).body)

                def reached(ear: Listener = ear, seq: int = fresh["seq"]) -> Any:
                    return any(each.payload.get("seq", 0) >= seq for each in ear.happenings) or seq == 0

                await ear.until(reached, what="the newest event")
                told = [(one.name, one.payload) for one in ear.happenings if one.durable or one.name == "snapshot"]
                assert differences(apply_all({}, told), fresh) == []

        await house.let(house.bob, house.carol)
        await house.spend(100, house.bob)
        await level()
        assert len(ears[2].events("bucket_update")) == 2
        assert ears[2].events("new_transaction") == []
        await house.block(removed(house.alice.address, house.bob.address))
        await house.spend(20, house.carol)
        await level()
        assert ears[1].events("bucket_update")[-1].payload["removed"] is True
        await house.bench.revert(2)
        await level()
        assert ears[1].events("bucket_update")[-1].payload["bucket"]["role"] == "delegate"
        await house.bench.revert(2)
        await level()
        assert ears[2].events("bucket_update")[-1].payload["removed"] is True
        assert [each.name for each in ears[3].happenings if each.durable] == []
