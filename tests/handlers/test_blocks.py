from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from config.settings import Settings
from handlers import chain_events as ce
from handlers.chain_events import Fee
from store.postgres import Pool
from tests.handlers.ledger import Bench, bench, sign_in
from tests.handlers.scripted import (
    ALICE,
    BOB,
    CAROL,
    FACTORY,
    OTHER_TOKEN,
    SHOP,
    USDC,
    WALLET,
    Script,
    at,
    created,
    deposit,
    fund,
    make_chain,
    spend,
    transfer,
)
from tests.recompute import recompute, shown
from watchers.ingest import ParentMismatch, WriterLost, writer

CENT = 10_000


@pytest.fixture
async def world(pool: Pool, make_settings: Callable[..., Settings]) -> AsyncIterator[Bench]:
    async with bench(pool, make_settings(), make_chain()) as made:
        await sign_in(pool, ALICE)
        yield made


def types(told: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [p["transaction"]["type"] if event == "new_transaction" else event for event, p in beside_inbox(told)]


def beside_inbox(told: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """What was told of money; the inbox has tests of its own."""
    return [(event, payload) for event, payload in told if event not in ("notification", "unread_count")]


async def opened(world: Bench) -> Script:
    """Alice has a bucket `food` with a limit of 100 and 90 in it."""
    script = Script()
    await world.apply(
        script.block([created(ALICE, "food", 100)], [deposit(ALICE, 500)], [fund(ALICE, "food", 90)]),
    )
    return script


async def test_spend_is_told_with_the_balances_and_the_budget_it_hit(world: Bench) -> None:
    script = await opened(world)
    await world.apply(script.block([spend(ALICE, "food", 81)]))
    event, payload = (await world.told(ALICE))[-1]
    assert event == "new_transaction"
    transaction, (balance,), (impact,) = (payload[k] for k in ("transaction", "updatedBalances", "budgetImpact"))
    assert transaction["id"] == f"31337:{script.made[-1].events[0].tx_hash}:0"
    assert (transaction["type"], transaction["direction"], transaction["counterparty"]) == ("spend", "out", SHOP)
    assert transaction["amount"] == {"raw": "81", "decimals": 6, "symbol": "USDC", "token": USDC, "usd": "0.000081"}
    assert (balance["scope"], balance["bucket"], balance["amount"]["raw"]) == ("bucket", "food", "9")
    assert (impact["spentBefore"], impact["spentAfter"], impact["remaining"]) == ("0", "81", "19")
    assert (impact["utilization"], impact["status"], impact["decimals"]) == ("0.81", "warning", 6)


async def test_seq_is_contiguous_and_the_snapshot_stands_at_the_last(world: Bench) -> None:
    script = await opened(world)
    await world.apply(script.block([spend(ALICE, "food", 1)], [spend(ALICE, "food", 2), spend(ALICE, "food", 3)]))
    seqs = [payload["seq"] for _, payload in await world.told(ALICE)]
    assert seqs == list(range(1, 7))
    assert (await world.snapshot(ALICE))["seq"] == 6


async def test_user_who_never_signed_in_has_a_ledger_and_no_log(world: Bench, pool: Pool) -> None:
    script = Script()
    await world.apply(script.block([created(BOB, "rent")], [deposit(BOB, 5)]))
    assert await world.log_after(BOB) == []
    assert await pool.fetchval("SELECT count(*) FROM transactions WHERE user_address = $1", BOB) == 1


async def test_delegate_is_told_without_the_owners_balances(world: Bench, pool: Pool) -> None:
    await sign_in(pool, CAROL)
    script = await opened(world)
    delegate = ce.DelegateAdded(**at(), user=ALICE, delegate=CAROL, name=b"food")
    await world.apply(script.block([delegate]), script.block([spend(ALICE, "food", 5, spender=CAROL)]))
    assert types(await world.told(ALICE))[-3:] == ["bucket_update", "spend", "bucket_update"]
    told = beside_inbox(await world.told(CAROL))
    assert types(told) == ["bucket_update", "spend", "bucket_update"]
    payload = told[1][1]
    assert payload["transaction"]["role"] == "delegate"
    assert payload["updatedBalances"] == []
    assert [impact["name"] for impact in payload["budgetImpact"]] == ["food"]
    assert (await world.snapshot(ALICE))["buckets"][0]["delegates"] == [CAROL]


async def test_token_leg_is_joined_for_the_payer_and_a_transfer_for_the_recipient(world: Bench, pool: Pool) -> None:
    await sign_in(pool, BOB)
    script = await opened(world)
    leg = transfer(WALLET, BOB, 7)
    await world.apply(script.block([leg, spend(ALICE, "food", 7, recipient=BOB)]))
    assert types(await world.told(ALICE))[-1] == "spend"
    ((_, received),) = beside_inbox(await world.told(BOB))
    assert (received["transaction"]["type"], received["transaction"]["direction"]) == ("transfer", "in")
    assert received["transaction"]["id"].endswith(":0")


async def test_both_sides_of_a_transfer_between_users_are_told(world: Bench, pool: Pool) -> None:
    await sign_in(pool, BOB)
    script = Script()
    await world.apply(
        script.block([]),
        openings={ALICE: {USDC: 100}, BOB: {USDC: 0}} if await world.ledger.to_open(script.made[-1]) else {},
    )
    await pool.execute(
        "INSERT INTO wallet_scopes (chain_id, user_address, opened_block) VALUES (31337, $1, 1), (31337, $2, 1)",
        ALICE,
        BOB,
    )
    await world.apply(script.block([transfer(ALICE, BOB, 30)]))
    _, sent = beside_inbox(await world.told(ALICE))[-1]
    _, received = beside_inbox(await world.told(BOB))[-1]
    assert (sent["transaction"]["direction"], received["transaction"]["direction"]) == ("out", "in")
    assert sent["updatedBalances"][0]["amount"]["raw"] == "-30"
    assert received["updatedBalances"][0]["amount"]["raw"] == "30"


async def test_own_balance_opens_with_what_the_chain_says_and_a_resync(world: Bench, pool: Pool) -> None:
    await pool.execute("INSERT INTO wallet_scopes (chain_id, user_address) VALUES (31337, $1)", ALICE)
    script = Script()
    block = script.block([transfer(BOB, ALICE, 5)])
    assert await world.ledger.to_open(block) == [ALICE]
    await world.apply(block, openings={ALICE: {USDC: 1000}})
    assert await world.ledger.to_open(script.block([])) == []
    told = await world.told(ALICE)
    assert types(told) == ["transfer"]
    assert told[0][1]["updatedBalances"][0]["amount"]["raw"] == "1000"
    await world.revert()
    assert await world.ledger.to_open(block) == [ALICE]
    assert (await world.snapshot(ALICE))["balances"] == []


async def test_opened_balance_without_a_transaction_is_told_by_a_resync(world: Bench, pool: Pool) -> None:
    await pool.execute("INSERT INTO wallet_scopes (chain_id, user_address) VALUES (31337, $1)", ALICE)
    await world.apply(Script().block([]), openings={ALICE: {USDC: 1000}})
    ((event, payload),) = await world.told(ALICE)
    assert (event, payload["reason"]) == ("resync", "backfill")
    assert (await world.snapshot(ALICE))["balances"][0]["amount"]["raw"] == "1000"


async def test_tokens_sent_into_a_wallet_are_a_stranded_deposit(world: Bench) -> None:
    script = await opened(world)
    await world.apply(script.block([transfer(ALICE, WALLET, 12)]))
    assert types(await world.told(ALICE))[-1] == "stranded_deposit"


async def test_wallet_of_a_factory_belongs_to_its_user(world: Bench) -> None:
    own = "0x" + "0a" * 20
    script = Script()
    await world.apply(
        script.block(
            [ce.WalletCreated(**at(FACTORY), user=ALICE, wallet=own, salt=0), created(ALICE, "x", emitter=own)]
        )
    )
    assert (await world.ledger.wallets())[own] == ALICE
    await world.apply(script.block([transfer(BOB, own, 3)]))
    assert types(await world.told(ALICE)) == ["bucket_update", "stranded_deposit"]
    await world.revert(2)
    assert own not in await world.ledger.wallets()


async def test_registering_someone_elses_wallet_takes_nothing_from_its_owner(world: Bench) -> None:
    own = "0x" + "0a" * 20
    script = Script()
    made = ce.WalletCreated(**at(FACTORY), user=ALICE, wallet=own, salt=0)
    stolen = ce.WalletRegistered(**at(FACTORY), user=BOB, wallet=own)
    shared = ce.WalletRegistered(**at(FACTORY), user=BOB, wallet=WALLET)
    await world.apply(script.block([made]), script.block([stolen], [shared]))
    for _ in range(2):
        wallets = await world.ledger.wallets()
        assert (wallets[own], wallets[WALLET]) == (ALICE, None)
        await world.ledger.load()


async def test_wallet_registered_in_advance_is_its_creators_and_the_registrants_again_after_a_reorg(
    world: Bench,
) -> None:
    own = "0x" + "0a" * 20
    script = Script()
    early = ce.WalletRegistered(**at(FACTORY), user=BOB, wallet=own)
    made = ce.WalletCreated(**at(FACTORY), user=ALICE, wallet=own, salt=0)
    await world.apply(script.block([early]))
    assert (await world.ledger.wallets())[own] == BOB
    await world.apply(script.block([made]))
    await world.ledger.load()
    assert (await world.ledger.wallets())[own] == ALICE
    await world.revert()
    assert (await world.ledger.wallets())[own] == BOB


async def test_rolling_period_is_closed_by_the_writer_at_its_end_and_not_before(world: Bench) -> None:
    script = await opened(world)
    await world.apply(script.block([spend(ALICE, "food", 81)]))
    month = timedelta(days=30).total_seconds()
    await world.apply(script.block([], after_s=month - 2 * 2))
    seq = (await world.snapshot(ALICE))["seq"]
    await world.apply(script.block([], after_s=2))
    ((event, payload),) = await world.told(ALICE, seq)
    assert event == "bucket_update"
    assert (payload["bucket"]["spent"], payload["bucket"]["periodStart"]) == ("0", None)
    reset = ce.MonthlyLimitReset(**at(), user=ALICE, name=b"food")
    await world.apply(script.block([reset, spend(ALICE, "food", 4)]))
    (_, paid) = (await world.told(ALICE))[-1]
    assert paid["budgetImpact"][0]["spentBefore"] == "0"
    assert paid["budgetImpact"][0]["spentAfter"] == "4"


async def test_fee_is_on_one_row_of_the_user_who_paid_it(world: Bench) -> None:
    script = await opened(world)
    paid = "0x" + "12" * 32
    events = [spend(ALICE, "food", 1, tx=paid), spend(ALICE, "food", 2, tx=paid)]
    await world.apply(script.block(events, fees={paid: Fee(ALICE, 21_000)}))
    fees = [payload["transaction"]["fee"] for _, payload in (await world.told(ALICE))[-2:]]
    assert fees[0]["raw"] == "21000"
    assert fees[1] is None


async def test_reverted_block_takes_every_effect_back_and_names_what_it_corrects(world: Bench) -> None:
    script = await opened(world)
    before = await world.snapshot(ALICE)
    await world.apply(script.block([spend(ALICE, "food", 81)], [created(ALICE, "new", 5)]))
    (_, told_spend), (_, told_bucket) = (await world.told(ALICE))[-2:]
    await world.revert()
    (e1, removed), (e2, reverted) = (await world.told(ALICE))[-2:]
    assert (e1, removed["removed"], removed["corrects"]) == ("bucket_update", True, [told_bucket["id"]])
    assert (e2, reverted["corrects"], reverted["reason"]) == ("transaction_reverted", [told_spend["id"]], "reorg")
    assert reverted["transactionId"] == told_spend["transaction"]["id"]
    assert reverted["budgetImpact"][0]["spentAfter"] == "0"
    after = await world.snapshot(ALICE)
    assert {**after, "seq": 0} == {**before, "seq": 0}


async def test_block_that_comes_back_is_told_again_under_new_event_ids(world: Bench, pool: Pool) -> None:
    script = await opened(world)
    block = script.block([spend(ALICE, "food", 81)])
    ids = []
    for _ in range(3):
        await world.apply(block)
        (_, payload) = (await world.told(ALICE))[-1]
        ids.append(payload["id"])
        assert payload["transaction"]["id"].startswith("31337:")
        await world.revert()
    await world.apply(block)
    assert len(set(ids)) == 3
    assert await pool.fetchval("SELECT count(*) FROM transactions WHERE canonical AND type = 'spend'") == 1
    told = [payload["id"] for _, payload in await world.told(ALICE)]
    assert len(told) == len(set(told))


async def test_transaction_included_again_elsewhere_keeps_its_identity(world: Bench) -> None:
    script = await opened(world)
    tx = "0x" + "77" * 32
    await world.apply(script.block([spend(ALICE, "food", 5, tx=tx)]))
    first = (await world.told(ALICE))[-1][1]
    await world.revert()
    script.back(1, fork="b")
    await world.apply(script.block([spend(ALICE, "food", 1)], [spend(ALICE, "food", 5, tx=tx)]))
    again = (await world.told(ALICE))[-1][1]
    assert again["transaction"]["id"] == first["transaction"]["id"]
    assert again["id"] != first["id"]


async def test_user_who_signed_in_after_the_block_is_told_of_its_revert_by_a_resync(world: Bench, pool: Pool) -> None:
    script = Script()
    await world.apply(script.block([created(BOB, "rent")], [deposit(BOB, 5)]))
    await sign_in(pool, BOB)
    await world.revert()
    ((event, payload),) = await world.told(BOB)
    assert (event, payload["reason"]) == ("resync", "correction")


async def test_event_that_breaks_its_handler_is_quarantined_and_the_rest_of_the_block_stands(
    world: Bench, pool: Pool
) -> None:
    script = await opened(world)
    bad = ce.AccountOperation(
        **at(), user=ALICE, account_type=9, operation_type=0, identifier=b"", amount=1, token=USDC
    )
    too_much = deposit(ALICE, 2**300)
    await world.apply(script.block([spend(ALICE, "food", 1)], [bad], [too_much], [spend(ALICE, "food", 2)]))
    assert types(await world.told(ALICE))[-2:] == ["spend", "spend"]
    reasons = [row["reason"] for row in await pool.fetch("SELECT reason FROM quarantined_logs ORDER BY log_index")]
    assert len(reasons) == 2
    assert reasons[0].startswith("IndexError")
    assert (await world.snapshot(ALICE))["buckets"][0]["spent"] == "3"
    assert [payload["seq"] for _, payload in await world.told(ALICE)] == [1, 2, 3, 4, 5]


async def test_same_block_twice_is_refused_and_changes_nothing(world: Bench) -> None:
    script = await opened(world)
    before = await world.snapshot(ALICE)
    with pytest.raises(ParentMismatch):
        await world.apply(script.made[-1])
    with pytest.raises(ParentMismatch):
        await world.apply(replace(script.block([deposit(ALICE, 1)]), parent_hash="0x" + "99" * 32))
    assert await world.snapshot(ALICE) == before


async def test_writer_whose_cursor_moved_writes_nothing(world: Bench, pool: Pool) -> None:
    script = await opened(world)
    await pool.execute("UPDATE chain_cursors SET hash = $1", "0x" + "99" * 32)
    with pytest.raises(WriterLost):
        await world.apply(script.block([deposit(ALICE, 1)]))
    assert await pool.fetchval("SELECT count(*) FROM blocks") == 1


async def test_second_writer_waits_for_the_first(world: Bench) -> None:
    import asyncio

    standby = asyncio.ensure_future(writer(world.deps, world.chain).__aenter__())
    done, _ = await asyncio.wait([standby], timeout=1.2)
    assert not done
    standby.cancel()
    with pytest.raises(asyncio.CancelledError):
        await standby


async def test_emergency_withdrawal_empties_the_token_everywhere_in_the_wallet(world: Bench) -> None:
    script = await opened(world)
    await world.apply(script.block([deposit(ALICE, 9, token=OTHER_TOKEN)]))
    emptied = ce.EmergencyWithdraw(**at(), user=ALICE, token=USDC, amount=500)
    await world.apply(script.block([emptied]))
    held = (await world.snapshot(ALICE))["balances"]
    assert [(entry["amount"]["token"], entry["amount"]["decimals"]) for entry in held] == [(OTHER_TOKEN, None)]
    state = recompute(script.made, ALICE).shown()
    assert shown(await world.snapshot(ALICE), chain_id=31337) == state


async def test_published_frames_are_the_log_and_blocks_the_canonical_chain(world: Bench) -> None:
    script = await opened(world)
    await world.apply(script.block([spend(ALICE, "food", 1)]))
    await world.revert()
    kept: Any = world.deps.publisher
    entries = await world.log_after(ALICE)
    texts = [text.decode() for user, text in kept.frames if user == ALICE]
    assert [text.split(",", 1)[1].rsplit(",", 1)[0] for text in texts] == [entry.payload for entry in entries]
    kinds = [(__import__("orjson").loads(message)["kind"]) for _, message in kept.blocks]
    assert kinds == ["apply", "apply", "revert"]
