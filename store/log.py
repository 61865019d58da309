"""The per-user log: gapless seq from the user's counter row, appended in the transaction that causes it.

Every transaction that appends calls `lock` first, before it reads or writes anything of those users, and `append` last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from store.postgres import Pool, Tx
from store.records import Address, Draft, Entry, Frame, Head
from store.statements import load

SQL = load("log")


@dataclass(frozen=True, slots=True)
class Counter:
    """A locked counter row; `opened` is False for a user who never signed in and so has no log."""

    user: Address
    epoch: str
    seq: int
    opened: bool


@dataclass(frozen=True, slots=True)
class Told:
    """An entry that a block caused, as a reorg finds it."""

    user: Address
    event_id: str
    event: str
    payload: str
    transaction_id: str | None


def frame_text(event: str, payload: str, *, epoch: str, seq: int) -> str:
    """`["event",{payload},"epoch:seq"]`: what goes over pub/sub and, framed, to the socket."""
    return f'["{event}",{payload},"{epoch}:{seq}"]'


def best_effort_text(event: str, payload: Mapping[str, object]) -> bytes:
    """Text of an event outside the log: it ends in its payload, so that nothing of it is taken for an offset."""
    return b'["%b",%b]' % (event.encode(), orjson.dumps(payload))


async def lock(tx: Tx, users: Iterable[Address]) -> dict[Address, Counter]:
    """Lock the counter rows of these users in address order, making missing ones. Call before anything else."""
    ordered = sorted(set(users))
    if not ordered:
        return {}
    # Inserting comes first: whoever locks one row and then waits to insert another can be waited for in turn.
    await tx.execute(SQL["open_counters"], ordered)
    rows = await tx.fetch(SQL["lock_counters"], ordered)
    return {
        row["user_address"]: Counter(row["user_address"], row["epoch"], row["seq"], row["opened_at"] is not None)
        for row in rows
    }


async def append(tx: Tx, counters: Mapping[Address, Counter], drafts: Sequence[Draft], *, at: datetime) -> list[Frame]:
    """Append drafts in order and return their frames, to be published after the commit.

    Users without a log are passed over; an event id that its user's log already has is a no-op.
    """
    wanted = [draft for draft in drafts if counters[draft.user].opened]
    if not wanted:
        return []
    known = {
        (row["user_address"], row["event_id"])
        for row in await tx.fetch(SQL["known_events"], [d.user for d in wanted], [d.event_id for d in wanted])
    }
    seqs = {user: counter.seq for user, counter in counters.items()}
    stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    rows: list[tuple[object, ...]] = []
    frames: list[Frame] = []
    for draft in wanted:
        if (draft.user, draft.event_id) in known:
            continue
        known.add((draft.user, draft.event_id))
        seq = seqs[draft.user] = seqs[draft.user] + 1
        payload = _payload(draft, seq=seq, stamp=stamp)
        rows.append(
            (
                draft.user,
                seq,
                draft.event_id,
                draft.event,
                payload,
                at,
                draft.chain_id,
                draft.cause,
                draft.transaction_id,
            )
        )
        text = frame_text(draft.event, payload, epoch=counters[draft.user].epoch, seq=seq)
        frames.append(Frame(draft.user, text.encode()))
    if rows:
        await tx.execute(SQL["append"], *map(list, zip(*rows, strict=True)))
        moved = {str(row[0]): seqs[str(row[0])] for row in rows}
        await tx.execute(SQL["move_counters"], list(moved), list(moved.values()))
    return frames


def _payload(draft: Draft, *, seq: int, stamp: str) -> str:
    head: dict[str, object] = {"id": draft.event_id, "seq": seq, "ts": stamp, "v": draft.version}
    if draft.corrects:
        head["corrects"] = draft.corrects
    return orjson.dumps(head | dict(draft.body)).decode()


async def heads(conn: Tx | Pool, users: Sequence[Address]) -> dict[Address, Head]:
    """Ends of these users' logs; a user without a log is left out."""
    rows = await conn.fetch(SQL["heads"], list(users))
    return {row["user_address"]: Head(row["epoch"], row["seq"], row["first_seq"]) for row in rows}


async def after(conn: Tx | Pool, user: Address, seq: int, *, limit: int, max_bytes: int) -> list[Entry]:
    """Entries with a seq above `seq`, in order: at most `limit`, and about `max_bytes` of payload (at least one)."""
    rows = await conn.fetch(SQL["after"], user, seq, limit, max_bytes)
    return [Entry(row["seq"], row["event"], row["payload"]) for row in rows]


async def of_cause(tx: Tx, chain_id: int, cause: str) -> list[Told]:
    """What a block (`hash:generation`) caused in any log, newest first per user."""
    rows = await tx.fetch(SQL["of_cause"], chain_id, cause)
    return [
        Told(row["user_address"], row["event_id"], row["event"], row["payload"], row["transaction_id"]) for row in rows
    ]


async def prune(conn: Tx | Pool, *, before: datetime, batch: int) -> int:
    """Delete one batch of entries older than `before`; returns how many. Call until it is less than `batch`."""
    return int(await conn.fetchval(SQL["prune"], before, batch))
