"""Who shares a bucket, what each has spent from it, and what each is shown of it. Pure.

Members are the owner and the first MAX_MEMBERS delegates. All see the same of the bucket; nobody sees anything else of
anyone (docs/adr/0019).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from config.chains import Chain
from handlers.rules.money import token_facts, valued
from handlers.rules.periods import iso
from handlers.rules.prices import EXACT
from store.notifications import Notice
from store.records import Address, BucketRow, Role
from store.sharing import SpendRow, SpentKey, SpentRow

MAX_MEMBERS = 50
"""Delegates of one bucket who see it, those who were added first. Whoever adds thousands pays for no more than these:
each change is told to all of them, and names all of them."""

MAX_TOKENS = 20
"""Tokens of which amounts are shown to others, those of the chain table first: anyone can make tokens, by thousands."""

NOTHING = Decimal(0)


def delegates_of(row: BucketRow) -> tuple[Address, ...]:
    """Who sees the bucket beside its owner, in the order in which they were added."""
    return tuple(address for address in row.delegates[:MAX_MEMBERS] if address != row.user)


def role_in(row: BucketRow, user: Address) -> Role | None:
    """What a user is to the bucket; None: nobody, and it does not exist for them."""
    if row.user == user:
        return "owner"
    return "delegate" if user in delegates_of(row) else None


def with_spend(
    known: SpentRow | None, amount: int, usd: Decimal | None, *, period_start: datetime | None, at: datetime
) -> SpentRow:
    """Figures with one more spend, in the rolling period that began at `period_start`."""
    if known is None:
        return SpentRow(amount, usd, 1, at, period_start, amount, usd)
    again = known.period_start == period_start
    return SpentRow(
        amount=known.amount + amount,
        usd=_sum(known.usd, usd),
        count=known.count + 1,
        last_at=at,
        period_start=period_start,
        period_amount=(known.period_amount if again else 0) + amount,
        period_usd=_sum(known.period_usd if again else NOTHING, usd),
    )


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else EXACT.add(one, other)


@dataclass(slots=True)
class Shares:
    """Figures of the shared buckets that a block may change, before it and then after each of its events."""

    before: Mapping[str, BucketRow | None] = field(default_factory=dict)
    """Those buckets as they were (None: there was none); one that begins to be shared is among them."""
    spent: dict[SpentKey, SpentRow] = field(default_factory=dict)
    names: Mapping[Address, str] = field(default_factory=dict)
    followed: Collection[Address] = ()
    """Who of the members has a log: the others are not told."""
    changed: dict[SpentKey, None] = field(default_factory=dict)
    untold: set[str] = field(default_factory=set)
    """Buckets whose owner was not told yet who spent from them."""
    keys: dict[str, dict[SpentKey, None]] = field(default_factory=dict)
    """By bucket, so that showing one looks at no other."""

    def __post_init__(self) -> None:
        for key in self.spent:
            self.keys.setdefault(key.bucket_id, {})[key] = None

    def spend(
        self,
        bucket: BucketRow,
        spender: Address | None,
        token: Address,
        amount: int,
        *,
        usd: Decimal | None,
        at: datetime,
    ) -> None:
        """Count a spend, where the bucket is shared; `bucket` is as it is after it."""
        if bucket.bucket_id not in self.before:
            return
        key = SpentKey(bucket.bucket_id, spender or "", token)
        self.spent[key] = with_spend(self.spent.get(key), amount, usd, period_start=bucket.period_start, at=at)
        self.changed[key] = self.keys.setdefault(key.bucket_id, {})[key] = None
        self.untold.add(bucket.bucket_id)

    def lines(self, row: BucketRow, chain: Chain) -> list[dict[str, object]]:
        """The bucket's members as they are now."""
        return lines(row, {key: self.spent[key] for key in self.keys.get(row.bucket_id, ())}, self.names, chain)


def lines(
    row: BucketRow, spent: Mapping[SpentKey, SpentRow], names: Mapping[Address, str], chain: Chain
) -> list[dict[str, object]]:
    """`members` of a bucket: the owner, the delegates by address, and everyone else who spent from it as one.

    None of a bucket that was never shared. A delegate's name is shown from their first spend on: anyone can add any
    address to a bucket of theirs, and must not learn by it whose it is.
    """
    if not row.shared:
        return []
    own: dict[str, list[tuple[Address, SpentRow]]] = {}
    members = (row.user, *sorted(delegates_of(row)))
    for key, figures in spent.items():
        own.setdefault(key.spender if key.spender in members else "", []).append((key.token, figures))
    shown = [
        _line(
            row,
            own.get(member, ()),
            chain,
            address=member,
            name=names.get(member) if member == row.user or member in own else None,
            role="owner" if member == row.user else "delegate",
        )
        for member in members
    ]
    if "" in own:
        shown.append(_line(row, own[""], chain, address=None, name=None, role="former"))
    return shown


def _line(
    row: BucketRow,
    figures: Sequence[tuple[Address, SpentRow]],
    chain: Chain,
    *,
    address: Address | None,
    name: str | None,
    role: str,
) -> dict[str, object]:
    now = [(token, each) for token, each in figures if row.period_start is not None]
    period = [(t, f.period_amount, f.period_usd) for t, f in now if f.period_start == row.period_start]
    last = max((each.last_at for _, each in figures), default=None)
    return {
        "address": address,
        "displayName": name,
        "role": role,
        "spent": _amounts(period, chain),
        "spentTotal": _amounts([(token, each.amount, each.usd) for token, each in figures], chain),
        "count": sum(each.count for _, each in figures),
        "lastSpentAt": iso(last) if last else None,
    }


def _amounts(figures: Iterable[tuple[Address, int, Decimal | None]], chain: Chain) -> list[dict[str, object]]:
    """Amounts by token, zeros left out, MAX_TOKENS at most; several of one token are added."""
    sums: dict[Address, tuple[int, Decimal | None]] = {}
    for token, raw, usd in figures:
        known = sums.get(token, (0, NOTHING))
        sums[token] = (known[0] + raw, _sum(known[1], usd))
    shown = []
    for token in first_tokens((token for token, (raw, _) in sums.items() if raw), chain):
        symbol, decimals = token_facts(chain, token)
        raw, usd = sums[token]
        shown.append(valued(raw, decimals, symbol=symbol, token=token, usd=usd))
    return shown


def first_tokens(tokens: Iterable[Address], chain: Chain) -> list[Address]:
    """Those of MAX_TOKENS that are shown to others, by address."""
    return sorted(sorted(tokens, key=lambda token: (token_facts(chain, token)[1] is None, token))[:MAX_TOKENS])


def gone(row: BucketRow) -> dict[str, object]:
    """A bucket as one is told of it who sees it no more: which it is, and nothing of how it is."""
    return {
        "id": row.bucket_id,
        "chainId": row.chain_id,
        "wallet": row.wallet,
        "owner": row.user,
        "role": "delegate",
        "name": row.name,
        "active": False,
        "monthlyLimit": "0",
        "spent": "0",
        "periodStart": None,
        "periodEnd": None,
        "balances": [],
        "delegates": [],
        "members": [],
    }


def spend(row: SpendRow, bucket: BucketRow, names: Mapping[Address, str]) -> dict[str, object]:
    """One spend as every member sees it: neither memo nor category."""
    role = role_in(bucket, row.spender) if row.spender else None
    return {
        "id": row.id,
        "chainId": row.chain_id,
        "txHash": row.tx_hash,
        "blockNumber": row.block_number,
        "blockTime": iso(row.block_time),
        "spender": row.spender,
        "displayName": names.get(row.spender) if row.spender and role else None,
        "role": role or "former",
        "amount": valued(row.amount, row.decimals, symbol=row.symbol, token=row.token, usd=row.usd),
        "recipient": row.recipient,
    }


TITLES = {True: "Shared with you", False: "No longer shared with you"}
BODIES = {True: "You may spend from someone's bucket.", False: "You may no longer spend from someone's bucket."}


def notice(user: Address, row: BucketRow, *, added: bool, about: str, subject: str, at: datetime) -> Notice:
    """The inbox entry of a delegate who was added or removed.

    It names nobody and no bucket: anyone can add anyone, and would choose the words on a stranger's lock screen.
    """
    return Notice(
        user=user,
        event_id=about,
        kind="bucket_shared",
        title=TITLES[added],
        body=BODIES[added],
        severity="info",
        transaction_id=None,
        created_at=at,
        facts={"bucket_id": row.bucket_id},
        subject=f"bucket_shared:{row.bucket_id}:{subject}",
    )
