"""Positions through the real writer on a real database: what moves them, what is told, what a reorg takes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from config.settings import Settings
from handlers import chain_events as ce
from handlers.chain_events import DecodedBlock
from handlers.rules.holdings import Values
from handlers.rules.yields import PRECISE, Rate, past_value
from store import yields
from store.postgres import Pool
from store.records import Address
from tests.handlers.ledger import Bench, bench, sign_in
from tests.handlers.scripted import (
    ALICE,
    BOB,
    CAROL,
    LOCK,
    SHOP,
    START,
    USDC,
    VAULT,
    Script,
    created,
    divested,
    handed,
    invested,
    kept,
    listed_vault,
    locked,
    make_chain,
    operation,
    spend,
    unlocked,
)

VAULT_ID = f"31337:{VAULT}"
DOLLAR = 10**6


def read(percent: int, *, full: bool = False, **locks: int) -> Values:
    """Values at which a share is worth so many hundredths of its asset."""
    by_id = {f"31337:{LOCK}:{number.removeprefix('lock')}": assets for number, assets in locks.items()}
    return Values({VAULT: Rate(PRECISE * percent // 100, PRECISE)}, by_id, full=full)


async def follow(pool: Pool, *users: Address) -> None:
    for user in users:
        await pool.execute("INSERT INTO users (address) VALUES ($1) ON CONFLICT DO NOTHING", user)
        await pool.execute(
            "INSERT INTO wallet_scopes (chain_id, user_address, opened_block) VALUES (31337, $1, 0)", user
        )


@pytest.fixture
async def world(pool: Pool, make_settings: Callable[..., Settings]) -> AsyncIterator[Bench]:
    chain = make_chain(vaults=(listed_vault(),), yield_locks=(LOCK,))
    async with bench(pool, make_settings(yield_interval_blocks=10), chain) as made:
        await sign_in(pool, ALICE)
        await follow(pool, ALICE, BOB)
        yield made


async def updates(world: Bench, user: Address = ALICE) -> list[dict[str, Any]]:
    return [payload for event, payload in await world.told(user) if event == "yield_update"]


def raws(position: dict[str, Any], *keys: str) -> list[int | None]:
    return [None if position[key] is None else int(position[key]["raw"]) for key in keys]


async def only(world: Bench, user: Address = ALICE) -> dict[str, Any]:
    (position,) = (await world.snapshot(user))["positions"]
    return dict(position)


# What moves a position ----------------------------------------------------------------------------------------------


async def test_deposit_is_one_row_one_balance_change_and_one_update(world: Bench) -> None:
    await world.apply(Script().block(invested(ALICE, 50 * DOLLAR, 40 * DOLLAR)), values=read(125))
    (_, told), (event, payload) = await world.told(ALICE)
    assert event == "yield_update"
    transaction = told["transaction"]
    assert (transaction["type"], transaction["accountType"], transaction["direction"]) == (
        "vault_deposit",
        "investment",
        "in",
    )
    assert (transaction["amount"]["usd"], transaction["identifier"], told["budgetImpact"]) == ("50.00", VAULT_ID, [])
    assert [one["amount"]["raw"] for one in told["updatedBalances"]] == [str(-50 * DOLLAR)]
    position = await only(world)
    assert payload["positions"] == [position]
    assert (position["asOfBlock"], position["lastUpdatedAt"]) == (1, transaction["blockTime"])
    assert raws(position, "value", "principal", "yield", "shares") == [50 * DOLLAR, 50 * DOLLAR, 0, 40 * DOLLAR]
    assert (position["entryPrice"], position["riskLevel"], position["protocol"]) == ("1.25", "medium", "Morpho")
    assert (payload["totalYield"], payload["apy"], payload["unpriced"]) == ("0.00", None, 0)


async def test_withdrawal_through_the_vault_closes_what_is_withdrawn(world: Bench) -> None:
    script = Script()
    await world.apply(script.block(invested(ALICE, 100 * DOLLAR, 100 * DOLLAR)), values=read(100))
    await world.apply(script.block(divested(ALICE, 55 * DOLLAR, 50 * DOLLAR)), values=read(110))
    assert raws(await only(world), "value", "principal", "yield") == [55 * DOLLAR, 50 * DOLLAR, 5 * DOLLAR]
    await world.apply(script.block(divested(ALICE, 55 * DOLLAR, 50 * DOLLAR)), values=read(110))
    assert (await world.snapshot(ALICE))["positions"] == []
    assert raws((await updates(world))[-1]["positions"][0], "value", "principal", "shares") == [0, 0, 0]


async def test_payer_and_owner_may_be_two(world: Bench, pool: Pool) -> None:
    await sign_in(pool, BOB)
    pay, _, said = invested(BOB, 50, 40)
    assert isinstance(said, ce.VaultDeposit)
    mine = ce.VaultDeposit(**{**{f: getattr(said, f) for f in said.__slots__}, **place(said), "owner": ALICE})
    await world.apply(Script().block([pay, handed("0x" + "00" * 20, ALICE, 40), mine]), values=read(125))
    assert [p["transaction"]["type"] for e, p in await world.told(BOB) if e == "new_transaction"] == ["transfer"]
    (row,) = [p["transaction"] for e, p in await world.told(ALICE) if e == "new_transaction"]
    assert (row["type"], row["counterparty"]) == ("vault_deposit", BOB)
    assert raws(await only(world), "principal", "shares") == [50, 40]


def place(event: ce.ChainEvent) -> dict[str, Any]:
    return {"tx_hash": event.tx_hash, "n": event.n, "log_index": event.log_index, "emitter": event.emitter}


async def test_handed_over_shares_are_a_row_on_both_sides(world: Bench, pool: Pool) -> None:
    await sign_in(pool, BOB)
    script = Script()
    await world.apply(script.block(invested(ALICE, 100, 100)), values=read(100))
    await world.apply(script.block([handed(ALICE, BOB, 40)]), values=read(150))
    assert raws(await only(world), "principal", "value", "shares") == [60, 90, 60]
    assert raws(await only(world, BOB), "principal", "value", "shares") == [60, 60, 40]
    rows = await pool.fetch(
        "SELECT user_address, type, direction, amount, token, account_type FROM transactions WHERE block_number = 2"
    )
    assert sorted(map(tuple, rows)) == sorted(
        [
            (ALICE, "vault_withdraw", "out", 60, USDC, "investment"),
            (BOB, "vault_deposit", "in", 60, USDC, "investment"),
        ]
    )


async def test_strangers_in_a_vault_are_nobodys_business(world: Bench, pool: Pool) -> None:
    await world.apply(Script().block(invested(CAROL, 100, 100), [handed(SHOP, CAROL, 5)]), values=read(100))
    assert await pool.fetchval("SELECT count(*) FROM investment_positions") == 0
    assert await pool.fetchval("SELECT count(*) FROM users WHERE address = $1", CAROL) == 0


async def test_own_address_that_opens_begins_with_the_shares_it_holds(world: Bench, pool: Pool) -> None:
    await pool.execute("UPDATE wallet_scopes SET opened_block = NULL WHERE user_address = $1", ALICE)
    opening = {ALICE: {USDC: 0, VAULT: 70}}
    await world.apply(Script().block(invested(ALICE, 20, 20)), openings=opening, values=read(200))
    assert raws(await only(world), "shares", "principal", "yield") == [70, 140, 0]


async def test_position_without_a_price_begins_with_the_first(world: Bench, pool: Pool) -> None:
    await pool.execute("UPDATE wallet_scopes SET opened_block = NULL WHERE user_address = $1", ALICE)
    script = Script()
    await world.apply(script.block(), openings={ALICE: {USDC: 0, VAULT: 70}})
    assert raws(await only(world), "shares", "principal", "value") == [70, None, None]
    await world.apply(script.block(), values=read(200, full=True))
    assert raws(await only(world), "shares", "principal", "value") == [70, 140, 140]
    await world.revert()
    assert raws(await only(world), "shares", "principal", "value") == [70, None, None]


async def test_vault_that_is_new_in_the_table_has_own_addresses_opened_again(world: Bench, pool: Pool) -> None:
    since = "SELECT opened_block FROM wallet_scopes WHERE user_address = $1"
    assert await pool.fetchval(since, ALICE) == 0  # the vault was followed before they were
    await world.ledger.load()
    assert await pool.fetchval(since, ALICE) == 0
    await pool.execute("DELETE FROM followed_vaults")
    await world.ledger.load()
    assert await pool.fetchval(since, ALICE) is None


async def test_lock_and_what_its_contract_keeps(world: Bench) -> None:
    script = Script()
    await world.apply(script.block(locked(ALICE, 7, 100, label="a\u202e house")), values=read(100, lock7=101))
    position = await only(world)
    assert raws(position, "value", "principal", "yield") == [101, 100, 1]
    assert (position["kind"], position["label"], position["unlockAt"]) == (
        "lock",
        "a house",
        "2026-11-02T00:00:00.000Z",
    )
    await world.apply(script.block(unlocked(ALICE, 7, 110, fee=2)))
    assert (await world.snapshot(ALICE))["positions"] == []
    (row,) = [p["transaction"] for e, p in await world.told(ALICE) if e == "new_transaction"][1:]
    assert (row["type"], row["amount"]["raw"], row["accountFee"]["raw"]) == ("yield_unlock", "108", "2")
    (kept_,) = await yields.positions_of(world.deps.pool, [ALICE])
    assert (kept_.realized, kept_.fees) == (8, 2)


async def test_operation_of_an_investment_account_shows_its_fee(world: Bench) -> None:
    script = Script()
    await world.apply(script.block([operation(ALICE, 0, 100), kept(ALICE, 3)]))
    position = await only(world)
    assert raws(position, "value", "principal", "fees") == [100, 100, 3]
    assert (position["kind"], position["shares"], position["apy"]) == ("account", None, None)
    (row,) = [p["transaction"] for e, p in await world.told(ALICE) if e == "new_transaction"]
    assert (row["accountFee"]["raw"], row["accountFee"]["usd"]) == ("3", "0.000003")
    assert row["identifier"] == "0x" + b"p".hex() * 32
    await world.apply(script.block([operation(ALICE, 1, 130)]))
    assert (await world.snapshot(ALICE))["positions"] == []
    (closed,) = await yields.positions_of(world.deps.pool, [ALICE])
    assert closed.realized == 30


# When yield is told -------------------------------------------------------------------------------------------------


async def test_yield_that_moves_by_itself_is_told_by_steps_and_not_too_often(world: Bench) -> None:
    script = Script()
    await world.apply(script.block(invested(ALICE, 100 * DOLLAR, 100 * DOLLAR)), values=read(100))
    await world.apply(script.block(), values=read(101, full=True))
    assert len(await updates(world)) == 1  # within the interval of the last telling
    script.number += 20
    await world.apply(script.block(), values=Values({VAULT: Rate(PRECISE + PRECISE // 20_000, PRECISE)}, full=True))
    assert len(await updates(world)) == 1  # half a cent
    assert raws(await only(world), "value") == [100 * DOLLAR]
    await world.apply(script.block(), values=read(101))
    assert len(await updates(world)) == 1  # not everything was read
    await world.apply(script.block(), values=read(101, full=True))
    (_, moved) = await updates(world)
    assert raws(moved["positions"][0], "value", "yield") == [101 * DOLLAR, DOLLAR]
    assert moved["totalYield"] == "1.00"


async def test_apy_looks_back_to_the_entry_and_then_a_week(world: Bench) -> None:
    script = Script()
    await world.apply(script.block(invested(ALICE, 100 * DOLLAR, 100 * DOLLAR)), values=read(100))
    for percent, days, window in ((101, 3, "3"), (102, 4, "7"), (104, 7, "7")):
        script.number += 20
        await world.apply(script.block(after_s=days * 86_400), values=read(percent, full=True))
        assert (await only(world))["windowDays"] == window
    assert (await only(world))["apy"] == "1.752513"  # (104 / 102) ** (365 / 7) - 1
    assert (await updates(world))[-1]["apy"] == "1.752513"


async def test_only_whose_yield_moved_is_told(world: Bench, pool: Pool) -> None:
    await sign_in(pool, BOB)
    script = Script()
    await world.apply(
        script.block(invested(ALICE, 100 * DOLLAR, 100 * DOLLAR), invested(BOB, 100, 100)), values=read(100)
    )
    script.number += 20
    await world.apply(script.block(), values=read(101, full=True))
    assert (len(await updates(world)), len(await updates(world, BOB))) == (2, 1)


# Reorgs -------------------------------------------------------------------------------------------------------------


async def test_reorg_corrects_the_update_with_the_figures_of_before(world: Bench, pool: Pool) -> None:
    script = Script()
    await world.apply(script.block(invested(ALICE, 100 * DOLLAR, 100 * DOLLAR)), values=read(100))
    before = await only(world)
    script.number += 20
    await world.apply(script.block(after_s=86_400), values=read(101, full=True))
    moved = (await updates(world))[-1]
    await world.revert()
    corrected = (await updates(world))[-1]
    assert (corrected["corrects"], corrected["positions"], corrected["totalYield"]) == ([moved["id"]], [before], "0.00")
    assert await only(world) == before
    await world.revert()
    gone = (await updates(world))[-1]
    assert raws(gone["positions"][0], "value", "principal", "yield", "shares") == [0, 0, 0, 0]
    for table in ("investment_positions", "share_prices", "position_points"):
        assert await pool.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_block_that_comes_back_is_told_anew(world: Bench) -> None:
    block = Script().block(invested(ALICE, 100, 100))
    await world.apply(block, values=read(100))
    await world.revert()
    await world.apply(block, values=read(100))
    first, corrected, again = await updates(world)
    assert len({first["id"], corrected["id"], again["id"]}) == 3
    assert again["positions"] == first["positions"]


async def test_who_signed_in_after_the_block_is_told_to_read_again(world: Bench, pool: Pool) -> None:
    await world.apply(Script().block(invested(BOB, 100, 100)), values=read(100))
    await sign_in(pool, BOB)
    await world.revert()
    assert [event for event, _ in await world.told(BOB)] == ["resync"]


async def test_block_applied_log_by_log_ends_in_the_same_positions(world: Bench) -> None:
    bad = ce.BucketCreated(**place_of_wallet(), user=ALICE, name=b"x", monthly_limit=10**80)
    script = Script()
    await world.apply(script.block(invested(ALICE, 100, 100)), values=read(100))
    await world.apply(
        script.block(invested(ALICE, 30, 20), [bad], [handed(ALICE, BOB, 60)]), values=read(150, full=True)
    )
    assert raws(await only(world), "shares", "principal", "value") == [60, 65, 90]
    await world.revert()
    assert raws(await only(world), "shares", "principal", "value") == [100, 100, 100]


def place_of_wallet() -> dict[str, Any]:
    return {"tx_hash": "", "n": 0, "log_index": 0, "emitter": "0x" + "aa" * 20}


# History ------------------------------------------------------------------------------------------------------------


async def test_past_values_follow_shares_and_prices_of_their_time(world: Bench, pool: Pool) -> None:
    script = Script()
    await world.apply(script.block(invested(ALICE, 100, 100), after_s=3600), values=read(100))
    await world.apply(script.block(after_s=3600), values=read(120, full=True))
    await world.apply(script.block(after_s=1800), values=read(125, full=True))  # too soon to be kept
    await world.apply(script.block(divested(ALICE, 65, 50), after_s=1800), values=read(130))

    async def value(hours: float) -> list[tuple[int | None, int | None, int]]:
        past = await yields.values_at(pool, ALICE, START + timedelta(hours=hours))
        return [(past_value(one), one.principal, one.realized) for one in past]

    assert await value(0.5) == []
    assert await value(1.5) == [(100, 100, 0)]
    assert await value(2.9) == [(120, 100, 0)]
    assert await value(3) == [(65, 50, 15)]
    assert await pool.fetchval("SELECT count(*) FROM share_prices") == 3


# What it costs ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def counted(world: Bench) -> AsyncIterator[list[str]]:
    statements: list[str] = []
    conn: Any = world.ledger._conn

    def log(record: Any) -> None:
        statements.append(record.query)

    with conn.query_logger(log):
        yield statements


async def cost(world: Bench, block: DecodedBlock, **options: Any) -> int:
    async with counted(world) as statements:
        await world.apply(block, **options)
    return len(statements)


async def test_blocks_that_move_no_position_ask_nothing_of_them(
    world: Bench, pool: Pool, make_settings: Callable[..., Settings]
) -> None:
    script = Script()
    await world.apply(script.block([created(ALICE, "food")]))
    async with counted(world) as statements:
        await world.apply(script.block([spend(ALICE, "food", 5)]), script.block())
        block = script.block()
        wanted = await world.ledger.to_value(block, opening=False)
        await world.apply(block, values=Values(full=wanted.full))
        await world.ledger.to_value(script.block(), opening=False)
    asked = [text for text in statements if "position" in text or "share_prices" in text or "user_accounts" in text]
    # The one look at what is open, once in an interval, and accounts with who is registered.
    assert [text.split("FROM ")[1].split()[0] for text in asked if "investment_positions" in text] == [
        "investment_positions"
    ] * 2
    assert all("users AS u LEFT JOIN" in text for text in asked if "user_accounts" in text)


async def test_thousand_holders_cost_as_many_statements_as_one(world: Bench, pool: Pool) -> None:
    people = [f"0x{number:040x}" for number in range(1, 201)]
    await follow(pool, *people)
    script = Script()
    first = await cost(world, script.block(invested(people[0], 100, 100)), values=read(100))
    many = await cost(world, script.block(*(invested(user, 100, 100) for user in people)), values=read(100))
    assert many <= first + 2
    assert await pool.fetchval("SELECT count(*) FROM investment_positions") == 200
    assert Decimal(await pool.fetchval("SELECT sum(principal) FROM investment_positions")) == 201 * 100
