"""The demo proves what it says: the client's view, the comparison at the end, and whole runs against a stand-in."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.embedded.chain import Anvil
from tests.watchers.devnet_stub import stub_product
from watchers.devnet import demo, script
from watchers.devnet.listener import Happening, Listener
from watchers.devnet.people import USDC, Devnet, Payment
from watchers.devnet.proof import Evidence, examine, percentile
from watchers.devnet.table import deploy_to_table, devnet_row
from watchers.devnet.view import apply, differences, normal


@pytest.fixture
async def devnet(anvil: Anvil) -> AsyncIterator[Devnet]:
    async with Devnet(anvil.rpc) as devnet:
        yield devnet


# ---- the client's view

USDC_OF = {"decimals": 6, "symbol": "USDC", "token": "0xusdc", "usd": None}
PERIOD = {"periodStart": "2026-11-01T00:00:00.000Z", "periodEnd": "2026-12-01T00:00:00.000Z"}


def balance(scope: str, raw: int, bucket: str | None = None) -> dict[str, Any]:
    place = {"chainId": 1, "scope": scope, "wallet": "0xw", "bucket": bucket, "bucketId": bucket and f"id-{bucket}"}
    return {**place, "amount": {**USDC_OF, "raw": str(raw)}}


def bucket(name: str, spent: int, *raws: int, **more: Any) -> dict[str, Any]:
    held = [{**USDC_OF, "raw": str(raw)} for raw in raws]
    no_period = {"periodStart": None, "periodEnd": None}
    return {
        "id": f"id-{name}",
        "name": name,
        "spent": str(spent),
        **no_period,
        "balances": held,
        "delegates": [],
        **more,
    }


def spend_event(seq: int, *, left: int, spent: int, bucket_id: str = "id-food", **more: Any) -> dict[str, Any]:
    impact = {"scope": "bucket", "bucketId": bucket_id, "spentAfter": str(spent), **PERIOD}
    return {
        "id": f"e{seq}",
        "seq": seq,
        "updatedBalances": [balance("bucket", left, "food")],
        "budgetImpact": [impact],
    } | more


def start_view() -> dict[str, Any]:
    balances = [balance("unallocated", 5), balance("bucket", 10, "food")]
    no_budgets: dict[str, Any] = {"budgets": [], "unreadCount": 0}
    return {"seq": 3, "balances": balances, "buckets": [bucket("food", 0, 10), bucket("fun", 1)], **no_budgets}


def test_view_takes_balances_and_spent_from_a_transaction_and_leaves_the_old_view() -> None:
    view = start_view()
    after = apply(view, "new_transaction", spend_event(4, left=7, spent=3))
    assert view == start_view()
    assert normal(after) == normal(
        {
            "seq": 4,
            "balances": [balance("unallocated", 5), balance("bucket", 7, "food")],
            "buckets": [bucket("fun", 1), bucket("food", 3, 7, **PERIOD)],
            "budgets": [],
            "unreadCount": 0,
        }
    )


def test_view_drops_a_balance_of_nothing_everywhere() -> None:
    after = apply(start_view(), "transaction_reverted", spend_event(4, left=0, spent=0))
    assert after["balances"] == [balance("unallocated", 5)]
    assert next(one for one in after["buckets"] if one["name"] == "food")["balances"] == []


def test_view_replaces_adds_and_removes_buckets() -> None:
    after = apply(start_view(), "bucket_update", {"seq": 4, "bucket": bucket("food", 9)})
    after = apply(after, "bucket_update", {"seq": 5, "bucket": bucket("rent", 0)})
    after = apply(after, "bucket_update", {"seq": 6, "bucket": {"id": "id-fun"}, "removed": True})
    assert normal(after)["buckets"] == [bucket("food", 9), bucket("rent", 0)]


def test_view_of_a_delegate_ignores_the_impact_on_a_bucket_of_another() -> None:
    impact = {"scope": "bucket", "bucketId": "id-theirs", "spentAfter": "3", **PERIOD}
    event = {"seq": 4, "updatedBalances": [], "budgetImpact": [impact]}
    assert apply(start_view(), "new_transaction", event) == {**start_view(), "seq": 4}


def test_view_is_replaced_by_a_snapshot_and_only_moved_by_what_it_does_not_know() -> None:
    fresh = {**start_view(), "seq": 9, "balances": []}
    assert apply(start_view(), "snapshot", {**fresh, "serverTime": "now"}) == fresh
    assert apply(start_view(), "resync", {"seq": 4, "reason": "backfill"}) == {**start_view(), "seq": 4}


def test_differences_name_what_differs() -> None:
    other = {**start_view(), "seq": 4, "balances": [balance("unallocated", 6), balance("bucket", 10, "food")]}
    lines = differences(start_view(), other)
    assert [line.partition(": ")[0] for line in lines] == ["seq", "balances", "balances"]
    assert differences(start_view(), {**start_view(), "balances": start_view()["balances"][::-1]}) == []


# ---- the proof


def happening(name: str, payload: dict[str, Any], at_ms: float) -> Happening:
    return Happening("event", at_ms, {"name": name, "payload": payload, "offset": f"e:{payload['seq']}"})


def told(seq: int, key: str, block: str, **more: Any) -> tuple[str, dict[str, Any]]:
    moved: dict[str, Any] = {"transaction": {"id": key, "type": "spend", "blockHash": block}}
    return "new_transaction", spend_event(seq, left=7, spent=3, **moved, **more)


def push(event_id: str, *, priority: str = "high") -> dict[str, Any]:
    android = {"collapse_key": f"key of {event_id}", "priority": priority}
    return {"android": android, "data": {"event_id": event_id}}


def whole_evidence() -> Evidence:
    """A spend, its reversal, its inclusion again in another block, and one that was replayed."""
    undo: dict[str, Any] = {"transactionId": "t1", "corrects": ["e4"]}
    events = [
        told(4, "t1", "0xa"),
        ("transaction_reverted", spend_event(5, left=10, spent=0, **undo)),
        told(6, "t1", "0xb"),
        told(7, "t2", "0xb"),
    ]
    received = [happening(name, payload, 1000.0 + 10 * i) for i, (name, payload) in enumerate(events)]
    view = start_view()
    for name, payload in events:
        view = apply(view, name, payload)
    return Evidence(
        start=start_view(),
        received=received,
        log=[{"event": name, "payload": copy.deepcopy(payload)} for name, payload in events],
        fresh=view,
        canonical=frozenset({"t1", "t2"}),
        heads={"0xa": 995.0, "0xb": 1012.0},
        pushes=[push("e5"), push("e6"), push("e6", priority="normal")],
        replayed=frozenset({7}),
    )


def test_proof_counts_what_a_client_saw() -> None:
    verdict = examine(whole_evidence())
    assert verdict.failures == []
    assert verdict.line == (
        "events 4, p50 5.0 ms, p99 8.0 ms from block to client, "
        "replayed 1 after a cut, corrected 1 by a reorg, lost 0, doubled 0, alerts 0, pushes 3"
    )


def drop_third(seen: Evidence) -> Evidence:
    return replace(seen, received=[*seen.received[:2], *seen.received[3:]])


def double_third(seen: Evidence) -> Evidence:
    return replace(seen, received=[*seen.received[:3], *seen.received[2:]])


def correct_nothing(seen: Evidence) -> Evidence:
    received = list(seen.received)
    received[1] = happening("transaction_reverted", {**received[1].payload, "corrects": []}, 1010.0)
    return replace(seen, received=received)


def undo_twice(seen: Evidence) -> Evidence:
    again = happening("transaction_reverted", {**seen.received[1].payload, "id": "e6", "seq": 6}, 1020.0)
    return replace(seen, received=[*seen.received[:2], again], canonical=frozenset())


@pytest.mark.parametrize(
    ("spoil", "failure", "lost", "doubled"),
    [
        (drop_third, "an event of the log was never received: e6", 2, 0),
        (double_third, "an event was received twice: e6", 0, 2),
        (double_third, "seq is not contiguous", 0, 2),
        (undo_twice, "was taken back twice: t1", 1, 0),
        (correct_nothing, "names nothing that it corrects", 0, 0),
        (lambda seen: replace(seen, received=seen.received[::-1]), "which was never received", 0, 0),
        (lambda seen: replace(seen, received=seen.received[::-1]), "differs: received", 0, 0),
        (lambda seen: replace(seen, log=seen.log[:-1]), "the client received 4 events, the log holds 3", 0, 0),
        (lambda seen: replace(seen, canonical=frozenset({"t1", "t2", "t3"})), "never told: t3", 1, 0),
        (lambda seen: replace(seen, canonical=frozenset({"t1"})), "not on the chain is still told: t2", 0, 0),
        (lambda seen: replace(seen, fresh=start_view()), "view is not the fresh snapshot", 0, 0),
        (lambda seen: replace(seen, pushes=[push("e6")] * 2), "buzzed twice for one effect: e6", 0, 0),
        (lambda seen: replace(seen, heads={}), "no event could be timed", 0, 0),
    ],
)
def test_proof_names_what_does_not_hold(
    spoil: Callable[[Evidence], Evidence], failure: str, lost: int, doubled: int
) -> None:
    verdict = examine(spoil(whole_evidence()))
    assert failure in "\n".join(verdict.failures)
    assert (verdict.lost, verdict.doubled) == (lost, doubled)


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(i) for i in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile([3.0], 99)) == (50.0, 99.0, 3.0)


# ---- the demo against a stand-in for the product


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(demo.PACE_S, True, 0.0)
    monkeypatch.setattr(script, "STILL_S", 0.1)
    monkeypatch.setattr(script, "ALERT_S", 3.0)


async def play(devnet: Devnet, tmp_path: Path, **options: Any) -> int:
    table = tmp_path / "chains.toml"
    at = await deploy_to_table(devnet.rpc, table)
    async with stub_product(devnet, at, **options) as web:
        stage = demo.Stage(web=web, phones=web, domain="localhost", chain=devnet_row(table))
        return await demo.run(stage, check=True)


@pytest.mark.parametrize(("options", "events"), [({}, 47), ({"late": True}, 48)])
async def test_demo_ends_ok_when_nothing_is_lost(
    options: dict[str, Any],
    events: int,
    devnet: Devnet,
    tmp_path: Path,
    brisk: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert await play(devnet, tmp_path, **options) == 0
    *_, figures, outcome = capfd.readouterr().out.splitlines()
    assert outcome == "demo: ok"
    assert figures.startswith(f"events {events}, p50 ")
    assert figures.endswith("corrected 1 by a reorg, lost 0, doubled 0, alerts 1, pushes 1")
    assert " replayed 5 after a cut, " in figures


@pytest.mark.parametrize(("times", "failure"), [(0, "an event of the log was never received"), (2, "received twice")])
async def test_demo_fails_when_an_event_is_lost_or_doubled(
    times: int,
    failure: str,
    devnet: Devnet,
    tmp_path: Path,
    brisk: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def sabotage(event: str, payload: dict[str, Any]) -> int:
        return times if payload["seq"] == 2 else 1  # a bucket, which nobody waits for

    assert await play(devnet, tmp_path, sabotage=sabotage) == 1
    last = capfd.readouterr().out.splitlines()[-1]
    assert last.startswith("demo: FAILED: ")
    assert failure in last


@pytest.mark.parametrize(
    ("options", "failure"),
    [
        ({"pushes_per_alert": 0}, "no push with event id "),
        ({"pushes_per_alert": 2}, "the phone buzzed twice for one effect"),
        ({"sabotage": lambda event, _: event != "budget_alert"}, "the budget's alert did not come within 3 s"),
    ],
)
async def test_demo_fails_when_the_alert_or_its_push_does_not_come_once(
    options: dict[str, Any],
    failure: str,
    devnet: Devnet,
    tmp_path: Path,
    brisk: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert await play(devnet, tmp_path, **options) == 1
    last = capfd.readouterr().out.splitlines()[-1]
    assert last.startswith("demo: FAILED: ")
    assert failure in last


async def test_listener_tells_why_it_may_not_connect(devnet: Devnet) -> None:
    async with stub_product(devnet, devnet.at) as web, Listener(web, "forged") as client:
        refused = await client.until(lambda: client.happenings, what="an answer")
        assert refused[0].kind == "connect_error"
        assert refused[0].body["problem"] == {"code": "unauthenticated"}


async def test_listener_comes_back_by_itself_after_a_cut(devnet: Devnet) -> None:
    alice = await devnet.user(1)
    async with stub_product(devnet, devnet.at, user=alice.address) as web, Listener(web, "access") as client:
        await client.until(lambda: client.events("snapshot"), what="the snapshot")
        await client.command("cut")
        await client.until(lambda: [one for one in client.happenings if one.kind == "disconnect"], what="the cut")
        await devnet.create_bucket(alice, "food")
        await client.until(lambda: client.events("bucket_update"), what="what was missed")
        assert [one.body["recovered"] for one in client.happenings if one.kind == "connect"] == [False, True]


async def test_canonical_ids_count_logs_within_their_transaction(devnet: Devnet) -> None:
    people = await devnet.users(2)
    for one in people:
        await devnet.open_bucket(one, "food")
    await devnet.set_automine(False)
    payments = [Payment("food", USDC, people[0].address)] * 2
    txs = [await devnet.batch_spend(one, payments) for one in people]
    await devnet.mine()
    found = await script.canonical_ids(devnet, people[1], [devnet.at.wallet])
    # Each spend is followed by the token's own log. The deposit stands behind it, the funding alone.
    assert {key for key in found if txs[1] in key} == {f"31337:{txs[1]}:{n}" for n in (0, 2)}
    assert sorted(key.rpartition(":")[2] for key in found if txs[1] not in key) == ["0", "1"]
