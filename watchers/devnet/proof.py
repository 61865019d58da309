"""What the demo must have shown: pure comparison of what a client received with the log, the chain and a snapshot."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from watchers.devnet.listener import Happening
from watchers.devnet.phone import Push, buzzed_twice
from watchers.devnet.view import apply_all, differences

MONEY_TYPES = frozenset({"deposit", "spend", "bucket_funding", "bucket_transfer", "unallocated_withdraw"})
"""Transaction types that stand for a wallet event of the user, one for one."""
_SHOWN = 3  # failures of one kind that are spelled out


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was seen, for one user. Transaction ids are `<chainId>:<txHash>:<n>`."""

    start: Mapping[str, Any]
    """The snapshot that the client got at first."""
    received: Sequence[Happening]
    """The durable events that it received since, in order."""
    log: Sequence[Mapping[str, Any]]
    """The same stretch of the log over REST: `{event, payload}`."""
    fresh: Mapping[str, Any]
    """A snapshot fetched when all was quiet."""
    canonical: frozenset[str]
    """Transaction ids of the user's wallet events on the chain as it now is."""
    heads: Mapping[str, float]
    """First sight of each block, ms since 1970."""
    pushes: Sequence[Push]
    """What reached the user's phone, in order."""
    replayed: frozenset[int]
    """seq of the events that were replayed after a cut: they say nothing about speed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The figures of the last line, and every invariant that failed, in words."""

    events: int
    p50_ms: float
    p99_ms: float
    replayed: int
    corrected: int
    lost: int
    doubled: int
    alerts: int
    pushes: int
    failures: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """The figures as the demo prints them."""
        return (
            f"events {self.events}, p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms from block to client, "
            f"replayed {self.replayed} after a cut, corrected {self.corrected} by a reorg, "
            f"lost {self.lost}, doubled {self.doubled}, alerts {self.alerts}, pushes {self.pushes}"
        )


def examine(seen: Evidence) -> Verdict:
    """Check every invariant and count."""
    ours = [one.payload["id"] for one in seen.received]
    theirs = [entry["payload"]["id"] for entry in seen.log]
    net = net_transactions(seen.received)
    never, twice = sorted(seen.canonical - set(+net)), sorted(key for key, count in net.items() if count > 1)
    ghosts = sorted(set(+net) - seen.canonical)
    undone = sorted(key for key, count in net.items() if count < 0)
    unreceived, repeated = set(theirs) - set(ours), [key for key, count in Counter(ours).items() if count > 1]
    latencies = sorted(block_to_client_ms(seen))
    reverted = [one.payload for one in seen.received if one.name == "transaction_reverted"]
    failures = [
        *_some("a transaction on the chain was never told", never),
        *_some("a transaction was told twice", twice),
        *_some("a transaction that is not on the chain is still told", ghosts),
        *_some("a transaction was taken back twice", undone),
        *_some("an event of the log was never received", sorted(unreceived)),
        *_some("an event was received twice", repeated),
        *_some("the phone buzzed twice for one effect", buzzed_twice(seen.pushes)),
        *_seq_failures(seen),
        *_log_failures(seen),
        *_correction_failures(seen.received),
        *_view_failures(seen),
    ]
    if not latencies:
        failures.append("no event could be timed: none of their blocks was seen by the demo's own subscription")
    return Verdict(
        events=len(ours),
        p50_ms=percentile(latencies, 50),
        p99_ms=percentile(latencies, 99),
        replayed=len(seen.replayed),
        corrected=len(reverted),
        lost=len(never) + len(unreceived),
        doubled=len(twice) + len(repeated),
        alerts=sum(one.name == "budget_alert" for one in seen.received),
        pushes=len(seen.pushes),
        failures=failures,
    )


def net_transactions(received: Iterable[Happening]) -> Counter[str]:
    """How often each wallet transaction was told, less how often it was taken back, by transaction id."""
    net: Counter[str] = Counter()
    for one in received:
        if one.name == "new_transaction" and one.payload["transaction"]["type"] in MONEY_TYPES:
            net[one.payload["transaction"]["id"]] += 1
        elif one.name == "transaction_reverted" and one.payload["transactionId"] in net:
            net[one.payload["transactionId"]] -= 1
    return net


def block_to_client_ms(seen: Evidence) -> list[float]:
    """Milliseconds from a block's first sight to the client, for each live transaction event."""
    times: list[float] = []
    for one in seen.received:
        if one.name != "new_transaction" or one.payload["seq"] in seen.replayed:
            continue
        block = seen.heads.get(one.payload["transaction"]["blockHash"])
        if block is not None:
            times.append(one.at_ms - block)
    return times


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile of sorted values; nan of none."""
    if not ascending:
        return math.nan
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def _seq_failures(seen: Evidence) -> list[str]:
    expected = int(seen.start["seq"])
    for one in seen.received:
        expected += 1
        if one.payload["seq"] != expected:
            return [f"seq is not contiguous: {one.name} has {one.payload['seq']} where {expected} was due"]
    return []


def _log_failures(seen: Evidence) -> list[str]:
    """The socket's events against the log's, pair by pair."""
    if len(seen.received) != len(seen.log):
        return [f"the client received {len(seen.received)} events, the log holds {len(seen.log)}"]
    for ours, theirs in zip(seen.received, seen.log, strict=True):
        if (ours.name, ours.payload) != (theirs["event"], theirs["payload"]):
            return [f"event {ours.payload['seq']} differs: received {ours.body}, in the log {theirs}"]
    return []


def _correction_failures(received: Sequence[Happening]) -> list[str]:
    """Every correction names events that this client was given before."""
    known: set[str] = set()
    failures: list[str] = []
    for one in received:
        corrects = one.payload.get("corrects", [])
        if one.name == "transaction_reverted" and not corrects:
            failures.append(f"transaction_reverted {one.payload['id']} names nothing that it corrects")
        failures += [f"{one.name} corrects {key}, which was never received" for key in corrects if key not in known]
        known.add(one.payload["id"])
    return failures


def _view_failures(seen: Evidence) -> list[str]:
    view = apply_all(seen.start, ((one.name, one.payload) for one in seen.received))
    return _some("the client's view is not the fresh snapshot", differences(view, seen.fresh))


def _some(what: str, which: Sequence[str]) -> list[str]:
    """One failure per thing, the first few of them."""
    more = [f"{what}: {len(which) - _SHOWN} more"] if len(which) > _SHOWN else []
    return [f"{what}: {one}" for one in which[:_SHOWN]] + more
