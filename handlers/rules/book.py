"""A block's working set: loaded once, changed in memory by the handlers in log order, written at once.

Pure: nothing here awaits. Handlers change balances and buckets through it, so that what changed is known exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from config.chains import Chain
from handlers.chain_events import ChainEvent, DecodedBlock, Fee, TokenTransfer
from handlers.events import BucketUpdate, NewTransaction, Resync, YieldUpdate
from handlers.rules import wire
from handlers.rules.holdings import Holdings
from handlers.rules.ids import bucket_id, event_id, shown_name
from handlers.rules.inbox import Inbox
from handlers.rules.legs import Legs
from handlers.rules.members import Shares
from handlers.rules.money import amount_text, token_facts
from handlers.rules.notices import alert_draft, alert_notice, delegate_notice, received_notice
from handlers.rules.prices import Prices
from handlers.rules.purse import Alert, Decided, Purse, counts
from store.notifications import Notice
from store.records import (
    ZERO_ADDRESS,
    AccountType,
    Address,
    BalanceKey,
    BucketRow,
    Direction,
    Draft,
    Role,
    Scope,
    TransactionRow,
)


@dataclass(frozen=True, slots=True)
class Movement:
    """What an event is in the ledger, beyond where it comes from."""

    type: str
    direction: Direction
    token: Address
    amount: int
    bucket: BucketRow | None = None
    to_bucket: BucketRow | None = None
    counterparty: str | None = None
    spender: str | None = None
    wallet: str | None = None
    account_type: AccountType = "spending"
    identifier: str | None = None
    account_fee: tuple[int, Address] | None = None
    """What the contract kept, and its token."""


@dataclass(slots=True)
class Book:
    """State of everyone a block concerns, before it and then after each of its events."""

    chain: Chain
    block: DecodedBlock
    generation: int
    legs: Legs
    registered: frozenset[Address]
    followed: frozenset[Address]
    """Users whose wallet-scope balance was opened before this block."""
    opened: Mapping[Address, Mapping[Address, int]]
    """Users whose wallet-scope balance opens with this block: token -> balance at its end."""
    owners: Mapping[Address, Address | None]
    """Known wallet contracts and whose they are; None for one that serves many."""
    buckets: dict[str, BucketRow]
    balances: dict[BalanceKey, int]
    now: datetime
    """Time of the commit: nobody is alerted of a period that is over."""
    prices: Prices
    """At the block; of tokens that it does not touch, the newest known."""
    created_wallets: dict[Address, Address] = field(default_factory=dict)
    accounts: Mapping[Address, frozenset[str]] = field(default_factory=dict)
    """Types of the accounts that each user has on the chain before this block."""
    new_accounts: dict[tuple[Address, AccountType], None] = field(default_factory=dict)
    holdings: Holdings = field(default_factory=Holdings)
    """Positions of whoever this block moves one of."""
    rows: list[TransactionRow] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    purses: Mapping[Address, Purse] = field(default_factory=dict)
    """Budgets of signed-in users; nobody else has categories, alerts or an inbox."""
    inboxes: Mapping[Address, Inbox] = field(default_factory=dict)
    changed_buckets: dict[str, None] = field(default_factory=dict)
    changed_balances: dict[BalanceKey, None] = field(default_factory=dict)
    held: dict[str, set[Address]] = field(default_factory=dict)
    """Tokens of each bucket, so that showing one bucket needs no look at all balances."""
    shares: Shares = field(default_factory=Shares)
    """Who spent what from the shared buckets that this block may change."""
    paid: set[str] = field(default_factory=set)
    """Transactions whose fee is on a row already: a fee counts once."""

    def __post_init__(self) -> None:
        for key in self.balances:
            self._index(key)

    def _index(self, key: BalanceKey) -> None:
        if key.bucket_id:
            self.held.setdefault(key.bucket_id, set()).add(key.token)

    @property
    def cause(self) -> str:
        """The block with its generation, as the log keeps it."""
        return f"{self.block.hash}:{self.generation}"

    @property
    def lacks_category(self) -> bool:
        """Whether a signed-in user's spend was left without a category: the models are asked later."""
        return any(
            row.type == "spend" and row.role == "owner" and row.id not in self.purses[row.user].decided
            for row in self.rows
            if row.user in self.purses
        )

    # Buckets and balances ---------------------------------------------------------------------------------------

    def bucket(self, wallet: Address, owner: Address, raw_name: bytes) -> BucketRow:
        """The bucket of that raw name; one whose creation lies before our first block begins with no limit."""
        key = bucket_id(self.chain.id, wallet, owner, raw_name)
        return self.buckets.get(key) or BucketRow(
            chain_id=self.chain.id,
            wallet=wallet,
            user=owner,
            bucket_id=key,
            name=shown_name(raw_name),
            raw_name=raw_name,
            active=True,
            monthly_limit=0,
            spent=0,
            period_start=None,
            delegates=(),
        )

    def keep(self, row: BucketRow) -> BucketRow:
        """Put a changed bucket back."""
        self.buckets[row.bucket_id] = row
        self.changed_buckets[row.bucket_id] = None
        return row

    def move(
        self, user: Address, scope: Scope, *, wallet: str, bucket: str = "", token: Address, delta: int
    ) -> BalanceKey:
        """Change one balance and return its key."""
        key = BalanceKey(user, self.chain.id, scope, wallet, bucket, token)
        return self.put(key, self.balances.get(key, 0) + delta)

    def put(self, key: BalanceKey, raw: int) -> BalanceKey:
        """Set one balance and return its key."""
        if key not in self.balances:
            self._index(key)
        self.balances[key] = raw
        self.changed_balances[key] = None
        return key

    def move_own(self, user: Address, transfer: TokenTransfer) -> list[BalanceKey]:
        """What a token transfer does to the user's own address; nothing unless that scope is followed."""
        key = BalanceKey(user, self.chain.id, "wallet", "", "", transfer.emitter)
        if user in self.opened:
            # Opened with this block: the balance read at its end contains the transfer already.
            return [self.put(key, self.opened[user].get(transfer.emitter, 0))]
        if user not in self.followed:
            return []
        delta = transfer.amount * ((transfer.recipient == user) - (transfer.sender == user))
        return [self.put(key, self.balances.get(key, 0) + delta)]

    def open_own(self, user: Address, token: Address, raw: int) -> None:
        """Begin to follow a token of the user's own address; a snapshot carries what no event told."""
        key = BalanceKey(user, self.chain.id, "wallet", "", "", token)
        if key not in self.changed_balances:
            self.put(key, raw)
            self.tell_bulk(user, "backfill")

    def begin_account(self, user: Address, kind: AccountType) -> None:
        """Open an account of the user with this block, unless there is one."""
        if kind not in self.accounts.get(user, ()):
            self.new_accounts[user, kind] = None

    # The ledger and the log -------------------------------------------------------------------------------------

    def record(
        self,
        event: ChainEvent,
        user: Address,
        movement: Movement,
        *,
        touched: Iterable[BalanceKey] = (),
        impact: Iterable[Mapping[str, object]] = (),
        role: Role = "owner",
    ) -> None:
        """Write a ledger row for the user and tell it, with the balances and budgets it changed."""
        row = self._row(event, user, movement, role=role)
        self.rows.append(row)
        self.begin_account(user, row.account_type)
        purse = self.purses.get(user) if role == "owner" else None
        decided = purse.categorize(row) if purse else None
        month_impacts, alerts = self._spend(purse, row, decided)
        body = {
            "transaction": wire.transaction(
                row,
                self.chain,
                status="included",
                category=purse.category(decided) if purse else None,
                memo=purse.memos.get(row.id) if purse else None,
            ),
            "updatedBalances": [self.balance(key) for key in dict.fromkeys(touched)],
            "budgetImpact": [*impact, *month_impacts],
        }
        self.drafts.append(self._draft(user, row.event_id, NewTransaction.name, body, transaction_id=row.id))
        if purse:
            self._tell_alerts(purse, row, [*alerts, *self._bucket_alerts(purse, row, movement.bucket)])
            self._tell_inbox(row)

    # Budgets, alerts and the inbox ------------------------------------------------------------------------------

    def _spend(
        self, purse: Purse | None, row: TransactionRow, decided: Decided | None
    ) -> tuple[list[dict[str, object]], list[Alert]]:
        if purse is None or not counts(row, decided):
            return [], []
        return purse.spend(decided.assignment.category_id if decided else None, row.usd, at=self.block.time)

    def _bucket_alerts(self, purse: Purse, row: TransactionRow, bucket: BucketRow | None) -> list[Alert]:
        if row.type != "spend" or bucket is None:
            return []
        usd_token = self.chain.usd_token
        return purse.look_at_bucket(bucket, self.block.time, decimals=usd_token.decimals if usd_token else None)

    def _tell_alerts(self, purse: Purse, row: TransactionRow, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            if alert.ends <= self.now:
                continue
            told = alert_draft(
                alert,
                purse,
                because=row.event_id,
                cause=self.cause,
                chain_id=self.chain.id,
                transaction_id=row.id,
                at=self.now,
            )
            self.drafts.append(told)
            notice = alert_notice(alert, row.user, event_id=told.event_id, transaction_id=row.id, at=self.now)
            self._notify(notice)

    def _tell_inbox(self, row: TransactionRow) -> None:
        if row.type == "transfer" and row.direction == "in":
            self._notify(
                received_notice(
                    row.user, amount=self._shown(row), event_id=row.event_id, transaction_id=row.id, at=self.now
                )
            )
        elif row.type == "spend" and row.spender not in (None, row.user):
            self._notify(
                delegate_notice(
                    row.user,
                    amount=self._shown(row),
                    bucket=row.bucket or "",
                    event_id=row.event_id,
                    transaction_id=row.id,
                    at=self.now,
                )
            )

    def _shown(self, row: TransactionRow) -> str:
        return amount_text(self.chain, row.token, row.amount)

    def _notify(self, notice: Notice) -> None:
        inbox = self.inboxes.get(notice.user)
        if inbox is not None:
            told = inbox.add(notice, self.cause)
            self.drafts += [replace(draft, chain_id=self.chain.id) for draft in told]

    def tell_bucket(self, row: BucketRow, *cause: object) -> None:
        """Tell the owner how a bucket is now; `cause` tells apart what happens to it within one block."""
        key = event_id(BucketUpdate.name, row.user, self.cause, row.bucket_id, *cause)
        self.drafts.append(self._draft(row.user, key, BucketUpdate.name, {"bucket": self.bucket_resource(row)}))
        self.shares.untold.discard(row.bucket_id)

    def tell_bulk(self, user: Address, reason: Literal["backfill", "correction"]) -> None:
        """Tell once per block that balances changed without a transaction: a snapshot carries them."""
        key = event_id(Resync.name, user, self.cause, reason)
        self.drafts.append(self._draft(user, key, Resync.name, {"reason": reason}))

    def tell_yield(self, user: Address, body: Mapping[str, object], *cause: object) -> None:
        """Tell how positions are now; `cause` tells apart what moves them within one block."""
        key = event_id(YieldUpdate.name, user, self.cause, *cause)
        self.drafts.append(self._draft(user, key, YieldUpdate.name, body))

    def balance(self, key: BalanceKey) -> dict[str, object]:
        """One balance as it is now, for the wire."""
        bucket = self.buckets.get(key.bucket_id)
        name = bucket.name if bucket else None
        return wire.balance(key, self.balances.get(key, 0), chain=self.chain, bucket=name, prices=self.prices)

    def bucket_resource(self, row: BucketRow, role: Role = "owner") -> dict[str, object]:
        """A bucket as it is now, as its owner or a delegate sees it."""
        keys = (
            BalanceKey(row.user, row.chain_id, "bucket", row.wallet, row.bucket_id, token)
            for token in self.held.get(row.bucket_id, ())
        )
        held = [(key.token, self.balances[key]) for key in keys]
        members = self.shares.lines(row, self.chain)
        return wire.bucket(row, held, chain=self.chain, prices=self.prices, role=role, members=members)

    def _row(self, event: ChainEvent, user: Address, movement: Movement, *, role: Role) -> TransactionRow:
        symbol, decimals = token_facts(self.chain, movement.token)
        fee = self._fee(event, user)
        bucket, to_bucket, kept = movement.bucket, movement.to_bucket, movement.account_fee
        return TransactionRow(
            user=user,
            chain_id=self.chain.id,
            block_hash=self.block.hash,
            tx_hash=event.tx_hash,
            n=event.n,
            event_id=event_id(NewTransaction.name, user, self.chain.id, self.cause, event.tx_hash, event.n),
            role=role,
            log_index=event.log_index,
            block_number=self.block.number,
            block_time=self.block.time,
            type=movement.type,
            account_type=movement.account_type,
            direction=movement.direction,
            token=movement.token,
            symbol=symbol,
            decimals=decimals,
            amount=movement.amount,
            usd=self.prices.usd(self.chain, movement.token, movement.amount),
            wallet=movement.wallet,
            bucket_id=bucket.bucket_id if bucket else None,
            bucket=bucket.name if bucket else None,
            to_bucket_id=to_bucket.bucket_id if to_bucket else None,
            to_bucket=to_bucket.name if to_bucket else None,
            counterparty=movement.counterparty,
            spender=movement.spender,
            fee_wei=fee.wei if fee else None,
            fee_usd=self.prices.usd(self.chain, ZERO_ADDRESS, fee.wei) if fee else None,
            gas_used=fee.gas_used if fee else None,
            gas_price=fee.gas_price if fee else None,
            identifier=movement.identifier,
            account_fee=kept[0] if kept else None,
            account_fee_token=kept[1] if kept else None,
        )

    def _fee(self, event: ChainEvent, user: Address) -> Fee | None:
        """The transaction's fee, once, and only for the user who paid it."""
        fee = self.block.fees.get(event.tx_hash)
        if fee is None or fee.payer != user or event.tx_hash in self.paid:
            return None
        self.paid.add(event.tx_hash)
        return fee

    def _draft(
        self, user: Address, key: str, event: str, body: Mapping[str, object], *, transaction_id: str | None = None
    ) -> Draft:
        return Draft(
            user=user,
            event_id=key,
            event=event,
            version=1,
            body=body,
            chain_id=self.chain.id,
            cause=self.cause,
            transaction_id=transaction_id,
        )


def with_delegate(row: BucketRow, delegate: Address, *, added: bool) -> BucketRow:
    """The bucket with a delegate added or removed; a second time changes nothing."""
    if added:
        known = row.delegates if delegate in row.delegates else (*row.delegates, delegate)
        return replace(row, delegates=known, shared=True)
    return replace(row, delegates=tuple(known for known in row.delegates if known != delegate))
