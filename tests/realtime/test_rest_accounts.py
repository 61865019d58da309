from __future__ import annotations

from typing import Any

import pytest

from store.postgres import Pool
from tests.realtime import rows
from tests.realtime.served import Client, Got
from tests.realtime.wiring import CHAIN, OTHER_CHAIN, USDC


def id_of(client: Client, kind: str = "spending", chain_id: int = CHAIN.id) -> str:
    return f"eip155:{chain_id}:{client.address}:{kind}"


async def patch(client: Client, account: str, json: Any, **headers: str) -> Got:
    return await client.call("PATCH", f"/v1/accounts/{account}", json=json, headers=headers)


@pytest.fixture
async def mine(me: Client, pool: Pool) -> Client:
    """With a spending and an investment account on one chain, a savings account on the other."""
    await rows.open_account(pool, me.address, "spending")
    await rows.open_account(pool, me.address, "investment")
    await rows.open_account(pool, me.address, "savings", chain_id=OTHER_CHAIN.id)
    return me


async def test_nobody_has_an_account_before_the_first_event(me: Client) -> None:
    assert (await me.get("/v1/accounts")).json == {"data": [], "hasMore": False, "nextCursor": None}


async def test_accounts_are_listed_by_chain_and_type_page_by_page(mine: Client, pool: Pool) -> None:
    await rows.bucket(pool, mine.address, b"food", holds=12_500_000)
    first = (await mine.get("/v1/accounts", params={"limit": 2})).json
    second = (await mine.get("/v1/accounts", params={"limit": 2, "cursor": first["nextCursor"]})).json
    assert (first["hasMore"], second["hasMore"], second["nextCursor"]) == (True, False, None)
    every: list[Any] = [*first["data"], *second["data"]]
    investment, spending, savings = every
    assert spending == {
        "id": id_of(mine),
        "chainId": CHAIN.id,
        "accountType": "spending",
        "accountName": None,
        "isActive": True,
        "balances": [{"raw": "12500000", "decimals": 6, "symbol": "USDC", "token": USDC, "usd": "12.50"}],
    }
    assert (investment["id"], investment["balances"]) == (id_of(mine, "investment"), [])
    assert (savings["chainId"], savings["accountType"]) == (OTHER_CHAIN.id, "savings")


async def test_account_is_renamed_and_put_away_and_the_rest_stays(mine: Client) -> None:
    renamed = (await patch(mine, id_of(mine), {"accountName": "Every day"})).json
    assert (renamed["accountName"], renamed["isActive"]) == ("Every day", True)
    away = (await patch(mine, id_of(mine).upper().replace("0X", "0x"), {"isActive": False})).json
    assert (away["accountName"], away["isActive"]) == ("Every day", False)
    assert (await mine.get(f"/v1/accounts/{id_of(mine)}")).json == away
    assert (await patch(mine, id_of(mine), {"accountName": None, "isActive": True})).json["accountName"] is None


async def test_change_meant_for_an_older_state_is_refused(mine: Client) -> None:
    tag = (await mine.get(f"/v1/accounts/{id_of(mine)}")).headers["ETag"]
    changed = await patch(mine, id_of(mine), {"accountName": "One"}, **{"If-Match": tag})
    assert changed.status == 200
    assert (await patch(mine, id_of(mine), {"accountName": "Two"}, **{"If-Match": tag})).status == 412
    assert (
        await patch(mine, id_of(mine), {"accountName": "Two"}, **{"If-Match": changed.headers["ETag"]})
    ).status == 200
    assert (await patch(mine, id_of(mine), {"accountName": "Three"}, **{"If-Match": "*"})).status == 200


@pytest.mark.parametrize("body", [{"accountName": ""}, {"accountName": "x" * 65}, {"isActive": None}, {"id": "x"}])
async def test_what_is_no_change_is_refused(mine: Client, body: Any) -> None:
    assert (await patch(mine, id_of(mine), body)).status == 400


async def test_others_accounts_and_those_that_are_none_are_not_found(mine: Client, anyone: Client, pool: Pool) -> None:
    other = await anyone.signed_in()
    await rows.open_account(pool, other.address, "spending")
    for account in (
        id_of(other),
        id_of(mine, "savings"),
        id_of(mine, chain_id=999),
        id_of(mine, chain_id=10**30),
        "spending",
        f"{CHAIN.id}:{mine.address}",
    ):
        assert (await mine.get(f"/v1/accounts/{account}")).status == 404
        assert (await patch(mine, account, {"accountName": "Mine"})).status == 404
    assert (await other.get("/v1/accounts")).json["data"][0]["accountName"] is None
