"""A chain's past, folded anew: ledger rows that were missing, and state that equals what the chain says.

Never alerts and never pushes: everyone whose state or history changed is told by one `resync`. Own addresses (scope
wallet) are not rebuilt: they are followed from the block they were opened at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from config.chains import Chain
from handlers import goals, sharing
from handlers.chain_events import DecodedBlock, DelegateAdded, SpentFromBucket, WalletEvent
from handlers.challenge_scores import request_of_users
from handlers.committed import request_evaluation, request_persistence
from handlers.events import Resync
from handlers.routes import dispatch
from handlers.rules.book import Book
from handlers.rules.holdings import Holdings
from handlers.rules.ids import bucket_id, event_id, shown_name
from handlers.rules.legs import join
from handlers.rules.members import delegates_of
from handlers.rules.periods import is_due
from handlers.rules.prices import NONE, Prices
from store import accounts, ledger, log, rebuild, spending, yields
from store.postgres import Tx
from store.records import Address, BalanceKey, BlockRef, BucketRow, Cursor, Draft, Frame, TransactionRow
from store.yields import Position, PositionKey


@dataclass(slots=True)
class Replay:
    """State of every wallet contract of a chain, in memory, as of the last folded block."""

    chain: Chain
    buckets: dict[str, BucketRow] = field(default_factory=dict)
    balances: dict[BalanceKey, int] = field(default_factory=dict)
    wallets: dict[Address, Address | None] = field(default_factory=dict)
    positions: dict[PositionKey, Position] = field(default_factory=dict)
    """Locks and V2 accounts; shares of vaults are followed like own addresses."""

    def fold(self, block: DecodedBlock, registered: Iterable[Address], *, prices: Prices = NONE) -> Book:
        """Apply one block at its prices; the book tells its rows and what it changed."""
        book = Book(
            chain=self.chain,
            block=block,
            generation=0,
            legs=join(block.events),
            registered=frozenset(registered),
            followed=frozenset(),
            opened={},
            owners=self.wallets,
            buckets=self.buckets,
            balances=self.balances,
            now=block.time,
            prices=prices,
            holdings=Holdings(self.positions),
        )
        for event in block.events:
            dispatch(book, event)
        self.wallets.update(book.created_wallets)
        return book

    def close_periods(self, now: datetime) -> list[str]:
        """Close what ended by `now`; returns those buckets.

        Final blocks are folded without it: a spend after the end begins a period by itself.
        """
        due = [key for key, b in self.buckets.items() if b.spent and is_due(b.period_start, now)]
        for key in due:
            self.buckets[key] = replace(self.buckets[key], spent=0, period_start=None)
        return due

    def of(self, user: Address) -> tuple[dict[str, BucketRow], dict[BalanceKey, int]]:
        """One user's buckets, and balances that are not zero."""
        return state_of(user, self.buckets.values(), self.balances)

    def dump(self) -> Any:
        """The state as JSON values, for a checkpoint."""
        return {
            "wallets": self.wallets,
            "buckets": [
                [
                    b.wallet,
                    b.user,
                    b.raw_name.hex(),
                    b.active,
                    str(b.monthly_limit),
                    str(b.spent),
                    b.period_start.isoformat() if b.period_start else None,
                    list(b.delegates),
                    b.shared,
                ]
                for b in self.buckets.values()
            ],
            "balances": [[*key, str(raw)] for key, raw in self.balances.items()],
            "positions": [_text_of(position) for position in self.positions.values()],
        }

    @classmethod
    def load(cls, chain: Chain, dumped: Any) -> Replay:
        """The state that `dump` gave."""
        buckets = [_bucket(chain.id, *fields) for fields in dumped["buckets"]]
        return cls(
            chain,
            {bucket.bucket_id: bucket for bucket in buckets},
            {BalanceKey(*fields[:-1]): int(fields[-1]) for fields in dumped["balances"]},
            dict(dumped["wallets"]),
            {one.key: one for one in map(_position, dumped.get("positions", ()))},
        )


def state_of(
    user: Address, buckets: Iterable[BucketRow], balances: Mapping[BalanceKey, int]
) -> tuple[dict[str, BucketRow], dict[BalanceKey, int]]:
    """A user's share of a state, in a form that compares: zeros and own addresses are left out."""
    return (
        {b.bucket_id: replace(b, delegates=tuple(sorted(b.delegates))) for b in buckets if b.user == user},
        {key: raw for key, raw in balances.items() if key.user == user and raw and key.scope != "wallet"},
    )


async def registered_in(tx: Tx, chain: Chain, blocks: Iterable[DecodedBlock]) -> set[Address]:
    """Users named by events, now registered, and those who already are among the spenders."""
    named: set[Address] = set()
    spenders: set[Address] = set()
    for block in blocks:
        for event in block.events:
            if isinstance(event, WalletEvent):
                named.add(event.user)
            if isinstance(event, SpentFromBucket) and event.spender is not None:
                spenders.add(event.spender)
    if named:
        await spending.register(tx, chain.id, sorted(named))
    return named | set(await spending.registered(tx, chain.id, spenders))


async def add_missing(tx: Tx, block: DecodedBlock, rows: Sequence[TransactionRow]) -> list[TransactionRow]:
    """Add the rows that the ledger lacks, as part of their block; returns them."""
    missing = await rebuild.missing_rows(tx, rows)
    if missing:
        ref = BlockRef(block.number, block.hash)
        await rebuild.add_block(tx, block.chain_id, ref, parent_hash=block.parent_hash, time=block.time)
        opened = {(row.user, row.account_type): None for row in missing}
        await accounts.add_missing(tx, block.chain_id, block.number, opened)
        await ledger.record(tx, missing)
        await rebuild.recount(tx, block.chain_id, block.hash)
        await request_persistence(tx, block.chain_id, ref)
    return missing


async def put_in_place(
    tx: Tx,
    replay: Replay,
    later: Sequence[DecodedBlock],
    *,
    prices: Mapping[str, Prices],
    cursor: Cursor,
    added: Iterable[Address],
    now: datetime,
) -> tuple[list[Frame], set[Address]]:
    """Make the state what the chain says, under the cursor's lock; returns what to publish, and who was told.

    `replay` stands at the finalized block, `later` are the blocks from there to the cursor: their pre-images are made
    anew, so that a reorg right after this restores rebuilt state; `prices` are theirs by block hash.
    """
    users = await rebuild.owners(tx, replay.chain.id) | {b.user for b in replay.buckets.values()}
    users |= {key.user for key in replay.balances} | {e.user for b in later for e in b.events if hasattr(e, "user")}
    users |= {key.user for key in replay.positions}
    members = await rebuild.delegates(tx, replay.chain.id) | {d for b in replay.buckets.values() for d in b.delegates}
    members |= {e.delegate for b in later for e in b.events if isinstance(e, DelegateAdded)}
    counters = await log.lock(tx, users | members)
    held = sorted(users)
    was = await spending.buckets_of(tx, replay.chain.id, held), await spending.balances_of(tx, replay.chain.id, held)
    target = Replay.load(replay.chain, replay.dump())
    rebuilt = set(added)
    for block in later:
        target.close_periods(block.time)
        book = target.fold(block, users, prices=prices.get(block.hash, NONE))
        rebuilt.update(row.user for row in await add_missing(tx, block, book.rows))
    target.close_periods(cursor.block_time)
    changed = {user for user in held if state_of(user, was[0], was[1]) != target.of(user)}
    owned = {wallet: owner for wallet, owner in target.wallets.items() if owner is not None}
    await spending.save_wallets(tx, replay.chain.id, owned, number=cursor.number)
    final = Replay.load(replay.chain, replay.dump())
    await _replace(tx, replay, later, changed, registered=users)
    if changed:
        await spending.save_buckets(tx, [b for b in target.buckets.values() if b.user in changed])
    await _recount(tx, final, target, later, changed | rebuilt)
    rebuilt |= await _add_positions(tx, [target.positions[key] for key in replay.positions])
    told = changed | (rebuilt & counters.keys())
    sharers = {user for b in (*was[0], *target.buckets.values()) if b.user in told for user in delegates_of(b)}
    told |= sharers & counters.keys()
    drafts = [_resync(replay.chain.id, user, cursor, now) for user in sorted(told)]
    cause = f"{cursor.hash}:{now.isoformat()}"
    drafts += await goals.after_rebuild(tx, replay.chain, sorted(told), cause=cause, now=now)
    await request_of_users(tx, told)
    await request_evaluation(tx, told)
    return await log.append(tx, counters, drafts, at=now), told


async def _replace(
    tx: Tx, replay: Replay, later: Sequence[DecodedBlock], users: set[Address], *, registered: Iterable[Address]
) -> None:
    """Write the finalized state of these users, then each later block's changes over it, with pre-images."""
    if not users:
        return
    chain_id = replay.chain.id
    first = later[0].number if later else 2**62
    await rebuild.drop_state(tx, chain_id, sorted(users), preimages_from=first)
    await spending.save_buckets(tx, [b for b in replay.buckets.values() if b.user in users])
    await spending.save_balances(tx, {k: raw for k, raw in replay.balances.items() if k.user in users})
    for block in later:
        closed = replay.close_periods(block.time)
        book = replay.fold(block, registered)
        buckets = [key for key in {*closed, *book.changed_buckets} if book.buckets[key].user in users]
        balances = [key for key in book.changed_balances if key.user in users]
        ref = BlockRef(block.number, block.hash)
        await ledger.keep_preimages(tx, chain_id, ref, buckets=buckets, balances=balances, wallets=(), scopes=())
        await spending.save_buckets(tx, [book.buckets[key] for key in buckets])
        await spending.save_balances(tx, {key: book.balances[key] for key in balances})


async def _recount(tx: Tx, final: Replay, target: Replay, later: Sequence[DecodedBlock], users: set[Address]) -> None:
    """Make what was spent from these users' shared buckets what the ledger says, each later block with pre-images."""
    chain_id = final.chain.id
    ids = {key for key, bucket in target.buckets.items() if bucket.shared and bucket.user in users}
    if not ids:
        return
    first = later[0].number if later else 2**62
    await sharing.forget(tx, chain_id, ids, preimages_from=first)
    rows = [bucket for key, bucket in final.buckets.items() if key in ids]
    await sharing.recount(tx, chain_id, rows, at=None, until=first - 1)
    for block in later:
        final.close_periods(block.time)
        book = final.fold(block, ())
        rows = [final.buckets[key] for key in book.changed_buckets if key in ids]
        await sharing.recount(tx, chain_id, rows, at=BlockRef(block.number, block.hash), until=block.number)


async def _add_positions(tx: Tx, positions: Sequence[Position]) -> set[Address]:
    """Add those that were final and that nobody has yet; they are valued with the next look at all that are open."""
    known = {one.key for one in await yields.positions_of(tx, sorted({one.user for one in positions}))}
    missing = [one for one in positions if one.key not in known and one.is_open]
    await yields.add(tx, missing)
    return {one.user for one in missing}


AMOUNTS = ("lock_id", "shares", "principal", "realized", "fees")
TIMES = ("as_of", "opened_at", "unlock_at")


def _text_of(position: Position) -> dict[str, object]:
    """A position as JSON values; nothing of it is valued while a chain is folded."""
    fields = asdict(position)
    fields |= {name: str(fields[name]) for name in AMOUNTS if fields[name] is not None}
    return fields | {name: fields[name].isoformat() for name in TIMES if fields[name] is not None}


def _position(fields: Mapping[str, Any]) -> Position:
    numbers = {name: int(fields[name]) for name in AMOUNTS if fields[name] is not None}
    times = {name: datetime.fromisoformat(fields[name]) for name in TIMES if fields[name] is not None}
    return Position(**{**fields, **numbers, **times})


def _resync(chain_id: int, user: Address, cursor: Cursor, now: datetime) -> Draft:
    key = event_id(Resync.name, user, chain_id, "backfill", cursor.hash, now.isoformat())
    return Draft(user, key, Resync.name, 1, {"reason": "backfill"}, chain_id=chain_id)


def _bucket(
    chain_id: int,
    wallet: Address,
    user: Address,
    raw_name: str,
    active: bool,
    limit: str,
    spent: str,
    start: str | None,
    delegates: Sequence[Address],
    shared: bool = False,  # a checkpoint may be older than it
) -> BucketRow:
    raw = bytes.fromhex(raw_name)
    return BucketRow(
        chain_id=chain_id,
        wallet=wallet,
        user=user,
        bucket_id=bucket_id(chain_id, wallet, user, raw),
        name=shown_name(raw),
        raw_name=raw,
        active=active,
        monthly_limit=int(limit),
        spent=int(spent),
        period_start=datetime.fromisoformat(start) if start else None,
        delegates=tuple(delegates),
        shared=shared or bool(delegates),
    )
