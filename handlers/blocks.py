"""A block becomes ledger, balances and log entries in one transaction: load, fold in memory, write at once.

Nobody is told before the commit: `apply` and `revert` hand back what is to be published after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from config import metrics
from config.chains import Chain
from config.settings import Settings
from handlers import budgets, challenge_scores, goals, investments, sharing, yields
from handlers.chain_events import ChainEvent, DecodedBlock, SpentFromBucket, TokenTransfer, WalletEvent
from handlers.committed import Committed, block_message, request_what_follows
from handlers.routes import dispatch
from handlers.rules.book import Book
from handlers.rules.categorize import Subject
from handlers.rules.holdings import NOTHING_READ, Values
from handlers.rules.ids import shown_name
from handlers.rules.inbox import Inbox
from handlers.rules.legs import Legs, join
from handlers.rules.periods import PERIOD
from handlers.rules.prices import Prices
from handlers.rules.purse import Purse
from handlers.spending import close_periods
from store import accounts, cursors, ledger, log, memos, notifications, outbox, pushes, spending
from store import prices as feeds
from store.postgres import Tx, is_passing
from store.records import Address, BlockRef, BucketRow, Cursor, Frame, Log, QuarantinedLog
from store.sealed import KeyRing
from store.spending import Registered
from store.yields import Position

logger = structlog.get_logger(__name__)

Openings = Mapping[Address, Mapping[Address, int]]
"""User -> token -> balanceOf at the end of the block, for those whose own address begins to be followed."""


class ParentMismatch(Exception):
    """The block does not follow the one the ledger stands at: it may not be applied."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What of the settings decides how a block is told, the same for every block."""

    ring: KeyRing
    """Opens memos."""
    hold_s: float
    """Pushes wait so long (s) for a device to show what they tell."""
    cdn_url: str
    """Prefixes icons."""
    yield_step: yields.Step
    """When yield that moved by itself is told."""

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        """The terms that the settings make."""
        step = yields.Step(settings.yield_step_usd, settings.yield_interval_blocks)
        return cls(KeyRing.of(settings), settings.push_hold_s, settings.cdn_url, step)


@dataclass(frozen=True, slots=True)
class Setting:
    """What every step of one block needs; `counters` are the locked counter rows."""

    tx: Tx
    chain: Chain
    block: DecodedBlock
    generation: int
    legs: Legs
    openings: Openings
    known: Mapping[Address, Registered]
    owners: Mapping[Address, Address | None]
    now: datetime
    prices: Prices
    terms: Terms
    values: Values
    drifting: Sequence[Position]
    """Positions whose yield moved by itself, as they were told last."""
    buckets: Sequence[BucketRow] | None = None
    """Buckets of the users as they are before the block; None: read them."""
    followed: frozenset[Address] = frozenset()
    """Whoever of those who are locked has a log."""

    @property
    def users(self) -> list[Address]:
        """Everyone whose rows this block may change."""
        return sorted(self.known)


async def apply(
    tx: Tx,
    chain: Chain,
    block: DecodedBlock,
    *,
    before: Cursor | None,
    head: int,
    finalized: int,
    owners: Mapping[Address, Address | None],
    openings: Openings,
    now: datetime,
    prices: Prices,
    terms: Terms,
    values: Values = NOTHING_READ,
) -> Committed:
    """Apply a block on top of `before`; the caller commits. Raises CursorMoved or ParentMismatch and writes nothing.

    `prices` are those at the block, `values` what positions are worth at it; what was read for it is stored with it.
    """
    ref = BlockRef(block.number, block.hash)
    _check_parent(before, block)
    await cursors.move(tx, before, chain.id, ref, time=block.time, head=head, finalized=finalized)
    generation = await cursors.apply_block(tx, chain.id, ref, parent_hash=block.parent_hash, time=block.time)
    due = await spending.due_buckets(tx, chain.id, started_by=block.time - PERIOD)
    frames: list[Frame] = []
    users: frozenset[Address] = frozenset()
    rows = 0
    drifting = await yields.drifted(tx, chain, values, number=block.number, prices=prices, step=terms.yield_step)
    if block.events or due or openings or drifting:
        known = await _known_users(tx, chain, block.events, owners=owners, also=[*(b.user for b in due), *openings])
        legs = join(block.events)
        setting = Setting(
            tx, chain, block, generation, legs, openings, known, owners, now, prices, terms, values, drifting
        )
        frames, rows, users = await _apply_events(setting, due)
    for refused in block.quarantined:
        await _quarantine(tx, chain, ref, refused)
    await feeds.record(tx, chain.id, ref, prices.read)
    await yields.save_prices(tx, block, values=values, opened=bool(openings))
    await cursors.count_rows(tx, chain.id, block.hash, rows)
    await request_what_follows(tx, chain.id, ref, generation=generation, has_rows=bool(rows), has_told=bool(frames))
    if rows:
        await challenge_scores.request_of_block(tx, chain.id, ref, users)
    message = block_message(
        chain.id, ref, block.parent_hash, time=block.time, kind="apply", transactions=rows, users=users
    )
    return Committed(ref, frames, message, rows, users)


def _check_parent(before: Cursor | None, block: DecodedBlock) -> None:
    if before is None:
        return
    if block.number <= before.number or (block.number == before.number + 1 and block.parent_hash != before.hash):
        raise ParentMismatch(f"block {block.number} {block.hash} does not follow {before.number} {before.hash}")


async def _known_users(
    tx: Tx,
    chain: Chain,
    events: Iterable[ChainEvent],
    *,
    owners: Mapping[Address, Address | None],
    also: Iterable[Address],
) -> dict[Address, Registered]:
    """The registered among everyone the block names; `user` of an accepted event is registered by it."""
    named: set[Address] = set()
    others: set[Address] = set(also)
    for event in events:
        if isinstance(event, TokenTransfer):
            others.update((event.sender, event.recipient))
            owner = owners.get(event.recipient)  # of a wallet in which the tokens may be stranded
            if owner is not None:
                others.add(owner)
        elif isinstance(event, WalletEvent):
            named.add(event.user)
            if isinstance(event, SpentFromBucket) and event.spender is not None:
                others.add(event.spender)
        else:
            others.update(yields.named(event))
    known = await spending.registered(tx, chain.id, named | others)
    missing = sorted(user for user in named if user not in known)
    if missing:
        await spending.register(tx, chain.id, missing)
    return known | dict.fromkeys(missing, Registered())


async def _apply_events(setting: Setting, due: Sequence[BucketRow]) -> tuple[list[Frame], int, frozenset[Address]]:
    """All events at once; when that raises, one by one, so that a bad one costs only itself."""
    block = setting.block
    # Nobody but the chain's writer changes buckets: whom the block concerns beside its users is read off them before
    # the lock. Counter rows are locked before anything else of these users is read or written.
    owned = await spending.buckets_of(setting.tx, setting.chain.id, setting.users) if setting.known else []
    sharers = sharing.concerned(sharing.touched(setting.chain.id, owned, block.events, due), block.events)
    counters = await log.lock(setting.tx, {*setting.known, *(one.user for one in setting.drifting), *sharers})
    setting = replace(setting, followed=frozenset(user for user, one in counters.items() if one.opened))
    try:
        async with setting.tx.transaction():
            return await _apply_batch(
                replace(setting, buckets=owned),
                block.events,
                due=due,
                openings=setting.openings,
                drifting=setting.drifting,
            )
    except Exception as error:  # whatever a handler or a row raises is narrowed down one by one
        if is_passing(error):
            raise
        logger.warning("block_apply_failed", chain=setting.chain.id, number=block.number, error=repr(error))
    frames: list[Frame] = []
    rows = 0
    users: set[Address] = set()
    steps: list[tuple[tuple[ChainEvent, ...], Sequence[BucketRow], Openings]] = [((), due, {})]
    steps += [((event,), (), {}) for event in block.events]
    steps.append(((), (), setting.openings))
    for events, closing, openings in steps:
        done = await _apply_alone(setting, events, due=closing, openings=openings)
        frames += done[0]
        rows += done[1]
        users |= done[2]
    return frames, rows, frozenset(users)


async def _apply_alone(
    setting: Setting, events: Sequence[ChainEvent], *, due: Sequence[BucketRow], openings: Openings
) -> tuple[list[Frame], int, frozenset[Address]]:
    """One event in a savepoint of its own; what fails is quarantined with its reason."""
    try:
        async with setting.tx.transaction():
            # Yield that moved by itself is told with the step that comes before every event.
            drifting = () if events or openings else setting.drifting
            return await _apply_batch(setting, events, due=due, openings=openings, drifting=drifting)
    except Exception as error:  # the failing log is kept with its reason and counted
        if is_passing(error) or not events:
            raise
        ref = BlockRef(setting.block.number, setting.block.hash)
        await _quarantine(setting.tx, setting.chain, ref, _refused(events[0], error))
        return [], 0, frozenset()


async def _apply_batch(
    setting: Setting,
    events: Sequence[ChainEvent],
    *,
    due: Sequence[BucketRow],
    openings: Openings,
    drifting: Sequence[Position],
) -> tuple[list[Frame], int, frozenset[Address]]:
    book = await _open_book(setting, events, openings, due)
    moved = yields.concerned(setting.chain, events, openings) & setting.known.keys()
    book.holdings = await yields.load(setting.tx, moved, values=setting.values, drifting=drifting)
    close_periods(book, due)
    for event in events:
        dispatch(book, event)
    _open_balances(book, openings)
    await yields.settle(setting.tx, book)
    await sharing.tell(setting.tx, book, events)
    frames = await _write(setting, book)
    return frames, len(book.rows), frozenset(d.user for d in book.drafts)


async def _open_book(
    setting: Setting, events: Sequence[ChainEvent], openings: Openings, due: Sequence[BucketRow]
) -> Book:
    tx, chain, users = setting.tx, setting.chain, setting.users
    purses, inboxes = await _open_purses(setting, events)
    buckets = setting.buckets
    if buckets is None:
        buckets = await spending.buckets_of(tx, chain.id, users) if users else []
    before = sharing.touched(chain.id, buckets, events, due)
    sharers = sharing.concerned(before, events)
    balances = await spending.balances_of(tx, chain.id, users) if users else {}
    return Book(
        chain=chain,
        block=setting.block,
        generation=setting.generation,
        legs=setting.legs,
        registered=frozenset(setting.known),
        followed=frozenset(user for user, one in setting.known.items() if one.followed_since is not None),
        accounts={user: one.accounts for user, one in setting.known.items()},
        opened=openings,
        owners=setting.owners,
        buckets={row.bucket_id: row for row in buckets},
        balances=balances,
        now=setting.now,
        prices=setting.prices,
        purses=purses,
        inboxes=inboxes,
        shares=await sharing.load(tx, before, users=sharers, followed=setting.followed),
    )


async def _open_purses(
    setting: Setting, events: Sequence[ChainEvent]
) -> tuple[dict[Address, Purse], dict[Address, Inbox]]:
    """Budgets and inboxes of the signed-in users of the block, with what rules and history know of its spends."""
    tx, chain_id = setting.tx, setting.chain.id
    moved = [event for event in events if isinstance(event, WalletEvent | TokenTransfer)]
    places = [(chain_id, event.tx_hash, event.n) for event in moved]
    noted = await memos.for_transactions(tx, setting.terms.ring, setting.users, {(chain_id, e.tx_hash) for e in moved})
    texts = noted.by_id(places)
    asked: dict[Address, dict[str, Subject]] = {}
    transactions: list[tuple[Address, str]] = []
    for event in moved:
        key = f"{chain_id}:{event.tx_hash}:{event.n}"
        if isinstance(event, SpentFromBucket):
            memo = texts.get(event.user, {}).get(key)
            asked.setdefault(event.user, {})[key] = _subject(setting, event, memo)
            transactions.append((event.user, key))
        elif isinstance(event, TokenTransfer):
            transactions += [(user, key) for user in (event.sender, event.recipient) if user in setting.known]
    purses = await budgets.load(
        tx,
        setting.users,
        at=setting.block.time,
        asked=asked,
        transactions=transactions,
        memos=texts,
        cdn_url=setting.terms.cdn_url,
    )
    if not purses:
        return {}, {}
    unread = await notifications.unread(tx, purses)
    allowed = await notifications.allowed(tx, purses)
    return purses, {user: Inbox(user, allowed[user], unread[user]) for user in purses}


def _subject(setting: Setting, event: SpentFromBucket, memo: str | None) -> Subject:
    usd = setting.prices.usd(setting.chain, event.token, event.amount)
    return Subject(event.recipient, shown_name(event.name), memo, usd)


def _open_balances(book: Book, openings: Openings) -> None:
    """Begin to follow users' own addresses with what they hold at the end of the block."""
    for user, held in openings.items():
        for token, raw in held.items():
            vault = book.chain.vault(token)
            if vault is not None:
                investments.open_shares(book, user, vault, raw)
            elif raw:
                book.open_own(user, token, raw)


async def _write(setting: Setting, book: Book) -> list[Frame]:
    """Everything a book changed, in a few statements; log entries last, since seq is allocated last."""
    tx, chain_id, number = setting.tx, setting.chain.id, setting.block.number
    ref = BlockRef(number, setting.block.hash)
    await ledger.keep_preimages(
        tx,
        chain_id,
        ref,
        buckets=book.changed_buckets,
        balances=book.changed_balances,
        wallets=book.created_wallets,
        scopes=book.opened,
    )
    await spending.save_wallets(tx, chain_id, book.created_wallets, number=number)
    await spending.save_buckets(tx, [book.buckets[key] for key in book.changed_buckets])
    await spending.save_balances(tx, {key: book.balances[key] for key in book.changed_balances})
    if book.opened:
        await spending.open_scopes(tx, chain_id, list(book.opened), number=number)
    await sharing.save(tx, book)
    await yields.save(tx, book)
    await accounts.open_accounts(tx, chain_id, ref, book.new_accounts)
    # Categories before their rows: what is recorded then tells of both at once.
    await budgets.save(tx, book.purses.values())
    await ledger.record(tx, book.rows)
    await goals.after_block(tx, book)
    await notifications.record(tx, [notice for inbox in book.inboxes.values() for notice in inbox.kept])
    if book.lacks_category:
        await outbox.request(
            tx, "slow", "categorize", {"chainId": chain_id, "number": number, "hash": setting.block.hash}
        )
    if not book.drafts:
        return []
    counters = await log.lock(tx, (draft.user for draft in book.drafts))
    frames = await log.append(tx, counters, book.drafts, at=setting.now)
    intents = [intent for inbox in book.inboxes.values() for intent in inbox.intents]
    await pushes.record(tx, intents, at=setting.now, hold_s=setting.terms.hold_s)
    return frames


def _refused(event: ChainEvent, error: Exception) -> QuarantinedLog:
    what = Log(event.emitter, (type(event).__name__,), "0x", event.tx_hash, event.log_index)
    return QuarantinedLog(what, f"{type(error).__name__}: {error}")


async def _quarantine(tx: Tx, chain: Chain, ref: BlockRef, refused: QuarantinedLog) -> None:
    await cursors.quarantine(tx, chain.id, ref, refused)
    metrics.of_chain(chain.id).logs_quarantined.inc()
    logger.error(
        "log_quarantined",
        chain=chain.id,
        number=ref.number,
        tx=refused.log.tx_hash,
        log_index=refused.log.log_index,
        reason=refused.reason,
    )
