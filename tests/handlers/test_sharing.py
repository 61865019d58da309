"""Shared money on the real ledger: what each member is told, what it comes to, and how a reorg takes it back."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store
from config.settings import Settings
from handlers import chain_events as ce
from handlers import sharing
from handlers.errors import NotFound
from handlers.sharing import Narrowed
from store import sharing as sharing_store
from store import spending
from store.postgres import Pool
from store.sharing import SpentKey, SpentRow
from tests.handlers.ledger import Bench, bench, sign_in
from tests.handlers.scripted import (
    ALICE,
    BOB,
    CAROL,
    OTHER_TOKEN,
    SHOP,
    USDC,
    Script,
    address,
    at,
    created,
    deposit,
    fund,
    make_chain,
    spend,
)
from tests.sharing import check_shared
from watchers.devnet import view as client

DAVE = address(0xDA7E)
DAY_S = 86_400
SCHEMA = Path(store.__file__).parent / "schema"


@pytest.fixture
async def world(pool: Pool, make_settings: Callable[..., Settings]) -> AsyncIterator[Bench]:
    async with bench(pool, make_settings(), make_chain()) as made:
        await sign_in(pool, ALICE, BOB, CAROL, DAVE)
        yield made


def added(user: str, delegate: str, name: str = "food") -> ce.DelegateAdded:
    return ce.DelegateAdded(**at(), user=user, delegate=delegate, name=name.encode())


def removed(user: str, delegate: str, name: str = "food") -> ce.DelegateRemoved:
    return ce.DelegateRemoved(**at(), user=user, delegate=delegate, name=name.encode())


async def opened(world: Bench) -> Script:
    """Alice has `food` and `rent` with money, and shares food with Bob and Carol."""
    script = Script()
    await world.apply(
        script.block([created(ALICE, "food", 1000), created(ALICE, "rent", 5)], [deposit(ALICE, 900)]),
        script.block([fund(ALICE, "food", 500), fund(ALICE, "rent", 300)]),
        script.block([added(ALICE, BOB), added(ALICE, CAROL)]),
    )
    return script


async def name(pool: Pool, user: str, text: str) -> None:
    await pool.execute("UPDATE users SET display_name = $2 WHERE address = $1", user, text)


def updates(told: Sequence[tuple[str, Any]]) -> list[dict[str, Any]]:
    return [payload for event, payload in told if event == "bucket_update"]


def seq_of(told: Sequence[tuple[str, Any]]) -> int:
    return int(told[-1][1]["seq"]) if told else 0


async def test_a_delegate_sees_that_bucket_and_nothing_else_of_its_owner(world: Bench) -> None:
    await opened(world)
    snapshot = await world.snapshot(BOB)
    (bucket,) = snapshot["buckets"]
    assert (bucket["name"], bucket["role"], bucket["owner"], bucket["monthlyLimit"]) == (
        "food",
        "delegate",
        ALICE,
        "1000",
    )
    assert [each["raw"] for each in bucket["balances"]] == ["500"]
    assert snapshot["balances"] == []
    assert "rent" not in repr(await world.told(BOB))
    assert [each["address"] for each in bucket["members"]] == [ALICE, *sorted((BOB, CAROL))]
    assert (await world.snapshot(DAVE))["buckets"] == []
    mine = {each["name"]: each for each in (await world.snapshot(ALICE))["buckets"]}
    assert mine["rent"]["members"] == []
    assert {**mine["food"], "role": "delegate"} == bucket


async def test_everyone_sees_who_spent_and_only_the_owner_a_category(world: Bench) -> None:
    script = await opened(world)
    before = {user: await world.snapshot(user) for user in (ALICE, BOB, CAROL, DAVE)}
    await world.apply(
        script.block([spend(ALICE, "food", 30, spender=BOB), spend(ALICE, "food", 5)]),
        script.block([spend(ALICE, "food", 2, spender=BOB, token=OTHER_TOKEN)], [fund(ALICE, "food", 9)]),
    )
    for user, seen in before.items():
        told, fresh = await world.told(user, seen["seq"]), await world.snapshot(user)
        assert client.differences(client.apply_all(seen, told), fresh) == []
        assert check_shared(script.made, user, fresh, 31337) == (user in (BOB, CAROL))
    assert await world.told(DAVE) == []
    (bucket,) = (await world.snapshot(CAROL))["buckets"]
    bob = next(each for each in bucket["members"] if each["address"] == BOB)
    assert [(each["raw"], each["usd"]) for each in bob["spent"]] == [("30", "0.00003"), ("2", None)]
    assert bob["count"] == 2
    assert len(updates(await world.told(CAROL))) == 3  # one a block: added, and two with spends
    assert all("category" not in payload["bucket"] for payload in updates(await world.told(CAROL)))


async def test_a_removed_delegate_sees_it_no_more_and_their_spends_stay(world: Bench) -> None:
    script = await opened(world)
    await world.apply(script.block([spend(ALICE, "food", 30, spender=BOB)]))
    seen = await world.snapshot(BOB)
    await world.apply(
        script.block([removed(ALICE, BOB), spend(ALICE, "food", 7)]), script.block([spend(ALICE, "food", 8)])
    )
    told = [each for each in await world.told(BOB, seen["seq"]) if each[0] != "notification"]
    ((event, payload),) = told
    assert (event, payload["removed"], payload["bucket"]["members"], payload["bucket"]["balances"]) == (
        "bucket_update",
        True,
        [],
        [],
    )
    assert (payload["bucket"]["spent"], payload["bucket"]["monthlyLimit"], payload["bucket"]["delegates"]) == (
        "0",
        "0",
        [],
    )
    key = payload["bucket"]["id"]
    fresh = await world.snapshot(BOB)
    assert fresh["buckets"] == []
    assert client.differences(client.apply_all(seen, await world.told(BOB, seen["seq"])), fresh) == []
    for ask in (
        sharing.bucket(world.deps, BOB, key),
        sharing.spends(world.deps, BOB, key, Narrowed(), below=None, limit=5),
    ):
        with pytest.raises(NotFound):
            await ask
    (food,) = [each for each in (await world.snapshot(ALICE))["buckets"] if each["name"] == "food"]
    former = food["members"][-1]
    assert (former["role"], former["address"], former["displayName"], former["count"]) == ("former", None, None, 1)
    own = await world.deps.pool.fetch("SELECT role FROM transactions WHERE user_address = $1 AND canonical", BOB)
    assert [row["role"] for row in own] == ["delegate"]


async def test_a_reorg_takes_it_back_for_every_member(world: Bench, pool: Pool) -> None:
    script = await opened(world)
    views = {user: await world.snapshot(user) for user in (ALICE, BOB, CAROL, DAVE)}
    first = {user: {**view, "seq": 0} for user, view in views.items()}
    await world.apply(
        script.block([spend(ALICE, "food", 30, spender=BOB)]),
        script.block([removed(ALICE, BOB), added(ALICE, DAVE), spend(ALICE, "food", 1, spender=DAVE)]),
    )
    script.back(2, fork="1")
    await world.revert(2)
    for user, seen in views.items():
        told, fresh = await world.told(user, seen["seq"]), await world.snapshot(user)
        assert client.differences(client.apply_all(seen, told), fresh) == []
        assert {**fresh, "seq": 0} == first[user]
        check_shared(script.made, user, fresh, 31337)
        taken = {key for _, payload in told for key in payload.get("corrects", ())}
        assert taken >= {p["id"] for e, p in told if e == "bucket_update" and not p.get("corrects")}
        assert taken >= {p["id"] for e, p in told if e == "notification"}
    assert await pool.fetchval("SELECT count(*) FROM bucket_spending") == 0


async def test_sharing_begins_with_what_the_owner_spent_before(world: Bench) -> None:
    script = Script()
    await world.apply(
        script.block([created(ALICE, "food")], [deposit(ALICE, 900)], [fund(ALICE, "food", 500)]),
        script.block([spend(ALICE, "food", 3)]),
        script.block([spend(ALICE, "food", 4)], after_s=31 * DAY_S),
        script.block([spend(ALICE, "food", 5), added(ALICE, BOB), spend(ALICE, "food", 6, spender=BOB)]),
    )
    for user in (ALICE, BOB):
        check_shared(script.made, user, await world.snapshot(user), 31337)
    await world.revert()
    script.back(1, fork="1")
    await world.apply(script.block([added(ALICE, CAROL)]), script.block([], after_s=31 * DAY_S))
    for user in (ALICE, BOB, CAROL):
        check_shared(script.made, user, await world.snapshot(user), 31337)
    (bucket,) = (await world.snapshot(CAROL))["buckets"]
    assert (bucket["spent"], bucket["members"][0]["spent"], bucket["periodStart"]) == ("0", [], None)
    assert updates(await world.told(CAROL))[-1]["bucket"] == bucket


async def test_a_name_is_shown_once_its_owner_took_part(world: Bench, pool: Pool) -> None:
    """Adding an address to a bucket must not tell whose it is."""
    for user, text in ((ALICE, "Alice"), (BOB, "Bob"), (CAROL, "Carol")):
        await name(pool, user, text)
    script = await opened(world)

    async def names(user: str) -> list[str | None]:
        (bucket,) = [each for each in (await world.snapshot(user))["buckets"] if each["name"] == "food"]
        return [each["displayName"] for each in bucket["members"]]

    assert await names(ALICE) == await names(BOB) == ["Alice", None, None]
    assert "Bob" not in repr(await world.told(ALICE)) + repr(await world.told(CAROL))
    await world.apply(script.block([spend(ALICE, "food", 1, spender=BOB)]))
    assert await names(CAROL) == ["Alice", "Bob", None]
    found = await sharing.spends(
        world.deps, CAROL, (await world.snapshot(CAROL))["buckets"][0]["id"], Narrowed(), below=None, limit=5
    )
    assert [(each["displayName"], each["spender"], each["recipient"]) for each in found.resources] == [
        ("Bob", BOB, SHOP)
    ]
    await world.apply(script.block([removed(ALICE, BOB)]))
    assert await names(CAROL) == ["Alice", None, None]


async def test_only_the_first_delegates_share_and_the_next_one_follows(world: Bench) -> None:
    script = await opened(world)
    crowd = [added(ALICE, address(0x1000 + i)) for i in range(48)]
    await world.apply(script.block(crowd), script.block([added(ALICE, DAVE)]))
    assert (await world.snapshot(DAVE))["buckets"] == []
    assert await world.told(DAVE) == []
    await world.apply(script.block([removed(ALICE, crowd[3].delegate)]))
    (bucket,) = (await world.snapshot(DAVE))["buckets"]
    assert updates(await world.told(DAVE)) == [{**updates(await world.told(DAVE))[0], "bucket": bucket}]
    assert check_shared(script.made, DAVE, await world.snapshot(DAVE), 31337) == 1
    await world.revert()
    assert (await world.snapshot(DAVE))["buckets"] == []
    assert updates(await world.told(DAVE))[-1]["removed"] is True


async def test_a_thousand_made_up_tokens_are_not_shown_to_others(world: Bench) -> None:
    script = await opened(world)
    fakes = [f"0x{number:040x}" for number in range(0x100, 0x100 + 60)]
    await world.apply(
        script.block(*([fund(ALICE, "food", 5, token=t), spend(ALICE, "food", 2, token=t)] for t in fakes)),
        script.block([spend(ALICE, "food", 1)]),
    )
    (bucket,) = (await world.snapshot(BOB))["buckets"]
    for shown in (bucket["balances"], bucket["members"][0]["spent"], bucket["members"][0]["spentTotal"]):
        assert len(shown) == 20
        assert USDC in [each["token"] for each in shown]
    assert bucket["members"][0]["count"] == 61
    own = next(each for each in (await world.snapshot(ALICE))["buckets"] if each["name"] == "food")
    assert len(own["balances"]) == 61
    assert updates(await world.told(BOB))[-1]["bucket"] == bucket


async def test_members_see_the_rest_of_a_block_of_which_an_event_breaks(world: Bench, pool: Pool) -> None:
    script = Script()
    await world.apply(script.block([created(ALICE, "food", 9)], [deposit(ALICE, 900)], [fund(ALICE, "food", 500)]))
    views = {user: await world.snapshot(user) for user in (ALICE, BOB, CAROL)}
    good = [spend(ALICE, "food", 1), added(ALICE, BOB), spend(ALICE, "food", 2, spender=BOB), added(ALICE, CAROL)]
    block = script.block(*([each] for each in good), [deposit(ALICE, 2**300)], [removed(ALICE, BOB)])
    await world.apply(block)
    assert await pool.fetchval("SELECT count(*) FROM quarantined_logs") == 1
    script.made[-1] = replace(block, events=tuple(e for e in block.events if not isinstance(e, ce.FundsDeposited)))
    for depth in range(2):
        for user, seen in views.items():
            told, fresh = await world.told(user, seen["seq"]), await world.snapshot(user)
            assert client.differences(client.apply_all(seen, told), fresh) == []
            assert check_shared(script.made, user, fresh, 31337) == (user == CAROL and not depth)
        if not depth:
            script.back(1, fork="1")
            await world.revert()


async def test_the_migration_counts_what_was_before(world: Bench, pool: Pool) -> None:
    script = await opened(world)
    await world.apply(
        script.block([spend(ALICE, "food", 30, spender=BOB), spend(ALICE, "food", 5, token=OTHER_TOKEN)]),
        script.block([spend(ALICE, "food", 9, spender=BOB), spend(ALICE, "rent", 1)], after_s=31 * DAY_S),
        script.block([removed(ALICE, BOB), removed(ALICE, CAROL)]),
    )
    before = await pool.fetch("SELECT * FROM bucket_spending ORDER BY bucket_id, spender, token")
    own = await world.snapshot(ALICE)
    await pool.execute("DELETE FROM bucket_spending")
    await pool.execute("UPDATE buckets SET shared = false")
    statements = (SCHEMA / "0023_shared_money.sql").read_text()
    await pool.execute(statements[statements.index("UPDATE buckets AS b") : statements.index("-- Spends of one")])
    after = await pool.fetch("SELECT * FROM bucket_spending ORDER BY bucket_id, spender, token")
    assert await world.snapshot(ALICE) == own
    assert [row["count"] for row in after] == [row["count"] for row in before] == [2, 1]
    # Pre-images that were kept before it know nothing of sharing.
    await pool.execute("UPDATE preimages SET was = was - 'shared' WHERE relation = 'buckets'")
    await world.revert()
    script.back(1, fork="1")
    for user in (ALICE, BOB, CAROL):
        check_shared(script.made, user, await world.snapshot(user), 31337)


async def test_a_delegate_who_signs_in_after_the_block_gets_a_snapshot_when_it_is_taken_back(
    world: Bench, pool: Pool
) -> None:
    early, late, gone = (address(0x1A7E + number) for number in range(3))
    script = await opened(world)
    await world.apply(
        script.block([added(ALICE, early), added(ALICE, gone)]),
        script.block([added(ALICE, late), removed(ALICE, gone)]),
        script.block([fund(ALICE, "food", 1)]),
    )
    await sign_in(pool, early, late, gone)
    views = {user: (await world.snapshot(user))["buckets"] for user in (early, late, gone)}
    assert [len(view) for view in views.values()] == [1, 1, 0]
    await world.revert()
    assert [len(await world.told(user)) for user in views] == [1, 1, 0]
    await world.revert()
    assert [len((await world.snapshot(user))["buckets"]) for user in views] == [1, 0, 1]
    for user, count in ((early, 2), (late, 2), (gone, 1)):
        assert [event for event, _ in await world.told(user)] == ["resync"] * count


async def test_being_added_and_removed_is_in_the_inbox_without_anyones_words(world: Bench, pool: Pool) -> None:
    script = await opened(world)
    await world.apply(script.block([removed(ALICE, BOB)]))
    told = [payload["notification"] for event, payload in await world.told(BOB) if event == "notification"]
    assert [each["title"] for each in told] == ["Shared with you", "No longer shared with you"]
    assert all("food" not in each["body"] and ALICE not in repr(each) for each in told)
    assert (await world.snapshot(BOB))["unreadCount"] == 2
    pushes = await pool.fetch("SELECT kind FROM pushes WHERE user_address = $1", BOB)
    assert [row["kind"] for row in pushes] == ["bucket_shared"] * 2
    await world.revert()
    assert (await world.snapshot(BOB))["unreadCount"] == 1


async def check_ledger(pool: Pool, owner: str) -> None:
    """What is kept beside the ledger is what the ledger says; of a period that is over nothing is asked."""
    async with pool.acquire() as conn, conn.transaction():
        rows = [row for row in await spending.buckets_of(conn, None, [owner]) if row.shared]
        kept = await sharing_store.spending(conn, [row.bucket_id for row in rows])
        counted = await sharing_store.count(conn, rows)

    def lasting(figures: Mapping[SpentKey, SpentRow]) -> dict[SpentKey, tuple[Any, ...]]:
        return {key: (each.amount, each.usd, each.count, each.last_at) for key, each in figures.items()}

    assert lasting(kept) == lasting(counted)


EXAMPLES = itertools.count(1)
people = st.integers(0, 3)
names_ = st.sampled_from(("food", "rent"))
moves = st.one_of(
    st.tuples(st.just("add"), names_, people),
    st.tuples(st.just("add"), names_, people),
    st.tuples(st.just("remove"), names_, people),
    st.tuples(st.just("spend"), names_, people, st.integers(1, 500), st.sampled_from((USDC, OTHER_TOKEN))),
    st.tuples(st.just("spend"), names_, people, st.integers(1, 500), st.just(USDC)),
    st.tuples(st.just("fund"), names_, st.integers(1, 500)),
    st.tuples(st.just("reset"), names_),
    st.tuples(st.just("limit"), names_, st.integers(0, 500)),
    st.tuples(st.just("empty")),
)
history = st.lists(
    st.one_of(
        st.tuples(st.just("block"), st.lists(moves, max_size=4), st.sampled_from((2, 2, 12 * DAY_S, 30 * DAY_S))),
        st.tuples(st.just("block"), st.lists(moves, min_size=1, max_size=4), st.just(2)),
        st.tuples(st.just("fork"), st.integers(1, 4), st.booleans()),
    ),
    min_size=5,
    max_size=16,
)


def events_of(owner: str, who: Sequence[str], move: tuple[Any, ...]) -> list[ce.ChainEvent]:
    match move:
        case "add", called, other:
            return [added(owner, who[other], called)]
        case "remove", called, other:
            return [removed(owner, who[other], called)]
        case "spend", called, by, amount, token:
            return [replace(spend(owner, called, amount, token=token), spender=(*who[:3], None)[by])]
        case "fund", called, amount:
            return [fund(owner, called, amount)]
        case "reset", called:
            reset = ce.MonthlyLimitReset(**at(), user=owner, name=called.encode())
            return [reset, spend(owner, called, 7, spender=who[1])]
        case "limit", called, limit:
            return [ce.BucketUpdated(**at(), user=owner, name=called.encode(), new_limit=limit, active=True)]
    return [ce.EmergencyWithdraw(**at(), user=owner, token=USDC, amount=1)]


@given(steps=history)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_what_members_see_equals_a_recomputation_under_any_order_and_reorgs(
    pool: Pool, make_settings: Callable[..., Settings], steps: list[tuple[Any, ...]]
) -> None:
    number = next(EXAMPLES)
    who = [address(0x5000 + number * 16 + i) for i in range(4)]  # the last one never signs in
    async with bench(pool, make_settings(), make_chain(2_000_000 + number)) as made:
        await sign_in(pool, *who[:3])
        script, forks = Script(2_000_000 + number), 0
        views = {user: await made.snapshot(user) for user in who[:3]}
        await made.apply(script.block([created(who[0], "food", 400)], [deposit(who[0], 10_000)]))
        taken: list[Any] = []
        for kind, *rest in steps:
            if kind == "block":
                taken = []
                await made.apply(script.block(*(events_of(who[0], who, move) for move in rest[0]), after_s=rest[1]))
            else:
                forks += 1
                taken = script.back(min(rest[0], len(script.made) - 1), fork=str(forks))
                await made.revert(len(taken))
                while taken and rest[1]:
                    await made.apply(script.put_back(taken.pop()))
            for user, seen in views.items():
                told, fresh = await made.told(user, seen["seq"]), await made.snapshot(user)
                views[user] = client.apply_all(seen, told)
                assert client.differences(views[user], fresh) == []
                check_shared(script.made, user, fresh, script.chain_id)
            await check_ledger(pool, who[0])
