"""What must be true once everything has settled: clients, log, ledger, blocks and warehouse say what the chain says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from asyncpg import Record

from handlers import chain_events as ce
from handlers import snapshot
from handlers.deps import Deps
from handlers.rules import achievements as rules
from store import achievements
from store.postgres import Connection
from tests.recompute import recompute, shown
from tests.sim.chain import decoded, held_at
from tests.sim.client import Client
from tests.sim.processes import Warehouse
from tests.watchers.node import FakeBlock
from tests.watchers.said import USDC
from watchers.devnet import view as views

PLAIN: Mapping[type[ce.WalletEvent], str] = {
    ce.FundsDeposited: "deposit",
    ce.BucketFunded: "bucket_funding",
    ce.UnallocatedWithdraw: "unallocated_withdraw",
    ce.SpentFromBucket: "spend",
    ce.BucketTransfer: "bucket_transfer",
}
"""Events that make one ledger row of their user, and its type."""


COUNTS = frozenset({"unread_count"})
Place = tuple[str, str, int, str, str, int]
"""User, transaction, n, block, type and amount of a ledger row."""


@dataclass(frozen=True)
class Outcome:
    """Everything there is to look at after a run."""

    conn: Connection
    deps: Deps
    chain_id: int
    blocks: Sequence[FakeBlock]
    clients: Sequence[Client]
    users: Sequence[str]
    """Who signed in."""
    published: Sequence[tuple[bytes, bytes]]
    warehouse: Warehouse


async def faults_of(outcome: Outcome) -> list[str]:
    """One line for each thing that is not as it must be."""
    lines = [line for client in outcome.clients for line in client.failures]
    for user in outcome.users:
        lines += await _user(outcome, user)
    lines += await _achievements(outcome)
    lines += await _ledger(outcome)
    lines += await _stream(outcome)
    lines += await _persisted(outcome)
    return lines


async def _user(outcome: Outcome, user: str) -> list[str]:
    lines: list[str] = []
    entries = await outcome.conn.fetch(
        "SELECT seq, event, event_id, payload FROM user_log WHERE user_address = $1 ORDER BY seq", user
    )
    head = await outcome.conn.fetchrow("SELECT seq, epoch FROM user_counters WHERE user_address = $1", user)
    assert head is not None
    if [row["seq"] for row in entries] != list(range(1, head["seq"] + 1)):
        lines.append(f"{user}: the log has gaps, or not what its counter says: {[r['seq'] for r in entries]}")
    lines += _corrections(user, [(row["event_id"], row["event"], orjson.loads(row["payload"])) for row in entries])
    log = {row["seq"]: (row["event"], orjson.loads(row["payload"])) for row in entries}
    fresh = orjson.loads((await snapshot.read(outcome.deps, user)).body)
    for client in outcome.clients:
        if client.user == user:
            lines += _client(client, log, fresh, epoch=head["epoch"])
    lines += _figures(outcome, user, fresh)
    lines += _frames(outcome, user, log, epoch=head["epoch"])
    return lines


def _corrections(user: str, log: Iterable[tuple[str, str, Mapping[str, Any]]]) -> list[str]:
    lines: list[str] = []
    known: dict[str, str] = {}
    taken: dict[str, str] = {}
    for event_id, event, payload in log:
        for corrected in payload.get("corrects", ()):
            if corrected not in known:
                lines.append(f"{user}: {event} {event_id} corrects {corrected}, which was not told before")
            if event in COUNTS:
                continue  # says how many are left, beside the event that takes them back
            if corrected in taken:
                lines.append(f"{user}: {known[corrected]} {corrected} is corrected by {taken[corrected]} and {event}")
            taken[corrected] = f"{event} {payload['seq']}"
        known[event_id] = f"{event} {payload['seq']}"
    return lines


def _client(client: Client, log: Mapping[int, Any], fresh: Mapping[str, Any], *, epoch: str) -> list[str]:
    lines = [
        f"{client.name}: got {got.event} {got.seq}, the log has {log.get(got.seq)}"
        for got in client.received
        if got.epoch != epoch or log.get(got.seq) != (got.event, got.payload)
    ]
    if client.view is None:
        return [*lines, f"{client.name}: never had a snapshot"]
    if client.seq != fresh["seq"]:
        lines.append(f"{client.name}: stands at {client.seq}, the log at {fresh['seq']}")
    return lines + [f"{client.name}: {line}" for line in views.differences(client.view, fresh)]


def _figures(outcome: Outcome, user: str, fresh: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    truth = recompute(decoded(outcome.blocks, outcome.chain_id), user).shown()
    inside = shown(fresh, chain_id=outcome.chain_id, scopes=("unallocated", "bucket"))
    for part in ("balances", "buckets"):
        lines += [
            f"{user}: {name}: chain {truth[part].get(name)}, snapshot {inside[part].get(name)}"
            for name in sorted({*truth[part], *inside[part]})
            if truth[part].get(name) != inside[part].get(name)
        ]
    own = shown(fresh, chain_id=outcome.chain_id, scopes=("wallet",))["balances"]
    held = held_at(outcome.blocks, user)
    if own.get(("wallet", "", "", USDC), 0) != held:
        lines.append(f"{user}: holds {held}, the snapshot says {own}")
    return lines


def _frames(outcome: Outcome, user: str, log: Mapping[int, Any], *, epoch: str) -> list[str]:
    """Nobody is told what is not committed."""
    lines = []
    channel = f"user:{user}".encode()
    for name, text in outcome.published:
        if name == channel and text.startswith(b"["):
            event, payload, offset = orjson.loads(text)
            if offset != f"{epoch}:{payload['seq']}" or log.get(payload["seq"]) != (event, payload):
                lines.append(f"{user}: {event} {offset} was published and is not in the log")
    return lines


async def _achievements(outcome: Outcome) -> list[str]:
    """What is held is what the facts say, now that all who were to be looked at were."""
    lines = []
    facts = await achievements.facts(outcome.conn, outcome.users)
    held = await achievements.held(outcome.conn, outcome.users)
    for user, known in facts.items():
        codes = [row.code for row in held[user]]
        left = rules.difference(rules.record(known, outcome.deps.now()), codes)
        lines += [f"{user}: {rule.code} was earned and is not held" for rule in left.unlocked]
        lines += [f"{user}: {code} is held and was not earned" for code in left.revoked]
    return lines + [f"{user} has no facts" for user in outcome.users if user not in facts]


async def _ledger(outcome: Outcome) -> list[str]:
    """Canonical blocks, and rows of none but them; one per chain event and person, as the chain has it."""
    lines = []
    blocks = {block.hash for block in outcome.blocks}
    kept = await outcome.conn.fetch("SELECT hash, number FROM blocks WHERE canonical ORDER BY number")
    lines += [
        f"block {row['number']} {row['hash']} is canonical here only" for row in kept if row["hash"] not in blocks
    ]
    live = await outcome.conn.fetchval("SELECT min(opened_block) FROM wallet_scopes") or 0
    ours = {row["hash"] for row in kept}
    lines += [f"block {b.number} is missing" for b in outcome.blocks if b.number >= live and b.hash not in ours]
    rows = await outcome.conn.fetch(
        "SELECT user_address, tx_hash, n, block_hash, type, role, amount FROM transactions WHERE canonical"
    )
    found = {_place(row) for row in rows}
    lines += [f"a canonical row of a block that is not: {row}" for row in rows if row["block_hash"] not in blocks]
    expected = set(_plain(outcome))
    plain = {_place(row) for row in rows if row["type"] in PLAIN.values() and row["role"] == "owner"}
    lines += [f"not in the ledger: {key}" for key in sorted(expected - found)]
    lines += [f"only in the ledger: {key}" for key in sorted(plain - expected)]
    quarantined = await outcome.conn.fetch("SELECT reason FROM quarantined_logs")
    return lines + [f"quarantined: {row['reason']}" for row in quarantined]


def _place(row: Record) -> Place:
    return row["user_address"], row["tx_hash"], row["n"], row["block_hash"], row["type"], int(row["amount"])


def _plain(outcome: Outcome) -> Iterable[Place]:
    """Rows that the chain's plain events make."""
    for block, told in zip(outcome.blocks, decoded(outcome.blocks, outcome.chain_id), strict=True):
        for i, tx in enumerate(block.txs):
            for n, event in enumerate(getattr(tx, "events", ())):
                if type(event) in PLAIN and event in told.events:
                    yield event.user, block.tx_hash(i), n, block.hash, PLAIN[type(event)], event.amount


async def _stream(outcome: Outcome) -> list[str]:
    """The blocks that were published tell of committed ones, and end at the chain's tip."""
    lines = []
    tip = ""
    known = {row["hash"] for row in await outcome.conn.fetch("SELECT hash FROM blocks")}
    for channel, text in outcome.published:
        if channel == f"chain:{outcome.chain_id}:blocks".encode():
            block = orjson.loads(text)
            if block["hash"] not in known:
                lines.append(f"block {block['number']} {block['hash']} was published and never committed")
            tip = block["hash"] if block["kind"] == "apply" else block["parentHash"]
    if tip != outcome.blocks[-1].hash:
        lines.append(f"the blocks that were published end at {tip}, the chain at {outcome.blocks[-1].hash}")
    return lines


async def _persisted(outcome: Outcome) -> list[str]:
    lines = []
    rows = await outcome.conn.fetch("SELECT * FROM transactions")
    keys = set()
    for row in rows:
        names = ("user_address", "chain_id", "block_time", "tx_hash", "n", "block_hash")
        key = tuple(row[name] for name in names)
        keys.add(key)
        stored = outcome.warehouse.kept.get(key)
        if stored is None:
            if row["canonical"]:
                lines.append(f"not persisted: {key}")
            continue
        if (stored["version"], bool(stored["is_deleted"])) != (row["version"], not row["canonical"]):
            lines.append(
                f"persisted as version {stored['version']}, deleted {stored['is_deleted']}, "
                f"the ledger has {row['version']}, canonical {row['canonical']}: {key}"
            )
    return lines + [f"persisted and in no ledger: {key}" for key in outcome.warehouse.kept if key not in keys]
