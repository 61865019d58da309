"""The state a chain's canonical blocks lead to, computed the plain way: what every incremental figure must equal.

Written against DOMAIN, not against the product's code: one pass over all blocks, no pre-images, no joins in SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from handlers import chain_events as ce
from handlers.chain_events import DecodedBlock

MONTH = timedelta(seconds=2_592_000)

BalanceName = tuple[str, str, str, str]
"""(scope, wallet, bucket name, token)"""
BucketName = tuple[str, str]
"""(wallet, bucket name)"""


@dataclass
class PlainBucket:
    active: bool = True
    limit: int = 0
    spent: int = 0
    start: datetime | None = None
    delegates: set[str] = field(default_factory=set)


@dataclass
class PlainState:
    """Everything one user owns on a chain. Names are decoded; zero balances are left out by `shown`."""

    balances: dict[BalanceName, int] = field(default_factory=dict)
    buckets: dict[BucketName, PlainBucket] = field(default_factory=dict)

    def add(self, name: BalanceName, delta: int) -> None:
        self.balances[name] = self.balances.get(name, 0) + delta

    def bucket(self, wallet: str, raw: bytes) -> PlainBucket:
        return self.buckets.setdefault((wallet, raw.decode()), PlainBucket())

    def shown(self) -> dict[str, Any]:
        return {
            "balances": {name: raw for name, raw in self.balances.items() if raw},
            "buckets": {
                name: (b.active, b.limit, b.spent, b.start, tuple(sorted(b.delegates)))
                for name, b in self.buckets.items()
            },
        }


def recompute(blocks: Iterable[DecodedBlock], user: str, *, followed: bool = False) -> PlainState:
    """Fold canonical blocks, oldest first, for one user. `followed`: own address is followed from the beginning."""
    state = PlainState()
    for block in blocks:
        for bucket in state.buckets.values():
            if bucket.spent and bucket.start is not None and block.time >= bucket.start + MONTH:
                bucket.spent, bucket.start = 0, None
        for event in block.events:
            if isinstance(event, ce.TokenTransfer):
                if followed:
                    delta = event.amount * ((event.recipient == user) - (event.sender == user))
                    state.add(("wallet", "", "", event.emitter), delta)
            elif isinstance(event, ce.WalletEvent) and event.user == user:
                _fold(state, event, block.time)
    return state


def _fold(state: PlainState, event: ce.WalletEvent, now: datetime) -> None:
    wallet = event.emitter
    match event:
        case ce.FundsDeposited():
            state.add(("unallocated", wallet, "", event.token), event.amount)
        case ce.UnallocatedWithdraw():
            state.add(("unallocated", wallet, "", event.token), -event.amount)
        case ce.BucketFunded():
            state.bucket(wallet, event.name)
            state.add(("unallocated", wallet, "", event.token), -event.amount)
            state.add(("bucket", wallet, event.name.decode(), event.token), event.amount)
        case ce.BucketTransfer():
            state.bucket(wallet, event.from_name)
            state.bucket(wallet, event.to_name)
            state.add(("bucket", wallet, event.from_name.decode(), event.token), -event.amount)
            state.add(("bucket", wallet, event.to_name.decode(), event.token), event.amount)
        case ce.SpentFromBucket():
            bucket = state.bucket(wallet, event.name)
            if bucket.start is None or now >= bucket.start + MONTH:
                bucket.spent, bucket.start = 0, now
            bucket.spent += event.amount
            state.add(("bucket", wallet, event.name.decode(), event.token), -event.amount)
        case ce.BucketCreated():
            state.buckets[(wallet, event.name.decode())] = PlainBucket(True, event.monthly_limit, 0, now, set())
        case ce.BucketUpdated():
            bucket = state.bucket(wallet, event.name)
            bucket.limit, bucket.active = event.new_limit, event.active
        case ce.MonthlyLimitReset():
            bucket = state.bucket(wallet, event.name)
            bucket.spent, bucket.start = 0, now
        case ce.DelegateAdded():
            state.bucket(wallet, event.name).delegates.add(event.delegate)
        case ce.DelegateRemoved():
            state.bucket(wallet, event.name).delegates.discard(event.delegate)
        case ce.EmergencyWithdraw():
            for name in list(state.balances):
                if name[0] != "wallet" and name[1] == wallet and name[3] == event.token:
                    state.balances[name] = 0


def shown(
    snapshot: Mapping[str, Any], *, chain_id: int, scopes: Iterable[str] = ("unallocated", "bucket", "wallet")
) -> dict[str, Any]:
    """A snapshot in the form of `PlainState.shown`, for one chain."""
    wanted = set(scopes)
    return {
        "balances": {
            (e["scope"], e["wallet"] or "", e["bucket"] or "", e["amount"]["token"]): int(e["amount"]["raw"])
            for e in snapshot["balances"]
            if e["chainId"] == chain_id and e["scope"] in wanted
        },
        "buckets": {
            (b["wallet"], b["name"]): (
                b["active"],
                int(b["monthlyLimit"]),
                int(b["spent"]),
                datetime.fromisoformat(b["periodStart"]) if b["periodStart"] else None,
                tuple(b["delegates"]),
            )
            for b in snapshot["buckets"]
            if b["chainId"] == chain_id and b["role"] == "owner"
        },
    }
