"""Which node of a chain to ask: a pure state machine from what is seen of the nodes to whom is passed over.

store/rpc.py feeds it with every answer and failure, store/probe.py with what it asks beside them. Nothing here asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

Reason: TypeAlias = Literal["error", "lag", "stale", "wrong_chain", "empty_logs", "disagreement"]
"""Why a node is passed over. lag: far behind its peers' heads; stale: its head stands still or stepped backwards."""
REASONS: tuple[Reason, ...] = get_args(Reason)

STRIKES = 2.8
"""Weight of recent faults at which a node is put aside: one or two are ordinary, and the next node is asked anyway.
Below 3, for the first of three faults within seconds has lost some of its weight by the third."""
HALF_LIFE_S = 30.0
"""Time in which the weight of a fault halves (s): three faults an hour are no reason to put a node aside."""
LONGEST = 100
"""Longest pause of a node that was put aside, in shortest pauses."""
GRAVE = 10
"""First pause after a lie, in shortest pauses: a node of another chain or fork does not come back within seconds."""
FORGIVEN_AFTER = 200
"""Time in use, in shortest pauses, after which pauses begin with the shortest again."""
UNKNOWN_STRIKES = 3
"""Looks in a row at which a node lacks a block below its own head until that counts as disagreement."""

_LIES: frozenset[Reason] = frozenset({"wrong_chain", "disagreement"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of a node before it is passed over."""

    lag_blocks: int = 5
    """Blocks it may be behind the best head of its peers."""
    stale_s: float = 30.0
    """Time its head may stand still while another's moves (s)."""
    aside_s: float = 3.0
    """Shortest time that a node stays put aside (s)."""
    probe_s: float = 5.0
    """How often every node is asked for its head, beside the calls (s)."""


# What is seen ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failed:
    """A call failed, or its answer was no use. `weight` 0: the node can't help it, yet another is asked next."""

    weight: float = 1.0
    reason: Reason = "error"


@dataclass(frozen=True, slots=True)
class Told:
    """The node told its newest block number. `vouched`: beside it, that it serves our chain and a block of ours."""

    head: int
    vouched: bool = True


@dataclass(frozen=True, slots=True)
class Lied:
    """The node serves another chain, or another history than its peers."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Knows:
    """Whether the node has a block at a height that its head has passed long ago."""

    block: bool


Seen: TypeAlias = Failed | Told | Lied | Knows


# What is known -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Node:
    """What is known of one node. Times are seconds of one monotonic clock."""

    head: int | None = None
    """Newest number it told; None before the first and after it was put aside."""
    vouched: int = 0
    """Newest number by which others are measured: one that it made up must not make them look late."""
    top: int = -1
    """Highest number it told."""
    moved_at: float = 0.0
    """When that grew last."""
    weight: float = 0.0
    """Weight of its faults at `weighed_at`."""
    weighed_at: float = 0.0
    unknown: int = 0
    """Looks in a row at which it lacked a block that it must have."""
    asides: int = 0
    """Times it was put aside without a long good time between."""
    aside_until: float = 0.0
    aside_for: Reason | None = None

    def weight_at(self, now: float) -> float:
        """Weight of its faults by now."""
        return float(self.weight * 0.5 ** (max(0.0, now - self.weighed_at) / HALF_LIFE_S))

    def is_aside(self, now: float) -> bool:
        """Whether it is not asked now."""
        return now < self.aside_until


@dataclass(frozen=True, slots=True)
class Verdict:
    """A node was passed over; with a pause it was put aside for so long (s)."""

    reason: Reason
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pool:
    """All nodes of one chain; `order` is who is asked first, second, …"""

    nodes: tuple[Node, ...]
    order: tuple[int, ...]
    limits: Limits = field(default_factory=Limits)
    committed: int = 0
    """Number of the block that our ledger stands at: some node told it."""

    @classmethod
    def of(cls, count: int, limits: Limits) -> Pool:
        """Nodes of which nothing is known, asked in the order of the chain table."""
        return cls(tuple(Node() for _ in range(count)), tuple(range(count)), limits)

    def usable(self, now: float) -> tuple[int, ...]:
        """Who may be asked, in order: all that are not put aside, or else all, the next to come back first."""
        fit = tuple(i for i in self.order if not self.nodes[i].is_aside(now))
        return fit or tuple(sorted(self.order, key=lambda i: self.nodes[i].aside_until))

    def jury(self, now: float) -> tuple[int, ...]:
        """Who may vote: also who is put aside, unless for a lie."""
        return tuple(i for i in self.order if not (self.nodes[i].is_aside(now) and self.nodes[i].aside_for in _LIES))

    def best_head(self, i: int, now: float) -> int:
        """The newest block number that others than node `i` vouch for."""
        peers = (node for at, node in enumerate(self.nodes) if at != i and not node.is_aside(now))
        return max((node.vouched for node in peers), default=0)

    def lag(self, i: int, now: float) -> int:
        """Blocks that node `i` is behind the best head; 0 when it told none."""
        head = self.nodes[i].head
        return 0 if head is None else max(0, self.best_head(i, now) - head)


def observe(pool: Pool, i: int, seen: Seen, *, now: float) -> tuple[Pool, Verdict | None]:
    """What is known after something was seen of node `i`, and the verdict if it is passed over for it.

    A chain's only node is never passed over.
    """
    was_first = pool.usable(now)[0] == i
    match seen:
        case Failed(weight, reason):
            node = _weighed(pool.nodes[i], weight, now)
            heavy = node.weight >= STRIKES
            return _passed_over(_with(pool, i, node), i, reason, now=now, aside=heavy, was_first=was_first)
        case Lied(reason):
            return _passed_over(pool, i, reason, now=now, aside=True, was_first=was_first)
        case Knows(block):
            unknown = 0 if block else pool.nodes[i].unknown + 1
            pool = _with(pool, i, replace(pool.nodes[i], unknown=unknown))
            if unknown < UNKNOWN_STRIKES:
                return pool, None
            return _passed_over(pool, i, "disagreement", now=now, aside=True, was_first=was_first)
        case Told(head, vouched):
            before = pool.nodes[i]
            pool = _with(pool, i, _moved(before, head, now, vouched=vouched))
            reason_or_none = _fault_of_head(pool, i, before.head, now)
            if reason_or_none is None:
                return pool, None
            return _passed_over(pool, i, reason_or_none, now=now, aside=True, was_first=was_first)


def liars(votes: Mapping[int, str], ours: str | None) -> frozenset[int]:
    """Who gave another hash for one height than is to be believed: hashes by node, and our own committed one.

    Three nodes or more: the majority is believed. Else who agrees with us. Nobody is blamed when all agree, against us
    or not (then the chain changed), or when nothing decides.
    """
    if len(set(votes.values())) < 2:
        return frozenset()
    (first, count), *_ = Counter(votes.values()).most_common()
    believed = first if len(votes) >= 3 and 2 * count > len(votes) else ours
    if believed not in votes.values():
        return frozenset()
    return frozenset(i for i, hash_ in votes.items() if hash_ != believed)


class BatchSize:
    """How many calls one node takes in a request: halved when it refuses, doubled again after many that worked."""

    RELAX_AFTER = 50
    """Full batches that must work until more is tried again."""

    def __init__(self, most: int) -> None:
        self.size = self._most = most
        self._worked = 0

    def refused(self, count: int) -> None:
        """A batch of so many was refused."""
        self.size = min(self.size, max(1, count // 2))
        self._worked = 0

    def worked(self, count: int) -> None:
        """A batch of so many was answered."""
        if count < self.size or self.size == self._most:
            return
        self._worked += 1
        if self._worked >= self.RELAX_AFTER:
            self.size = min(self._most, self.size * 2)
            self._worked = 0


# Steps -------------------------------------------------------------------------------------------------------------


def _with(pool: Pool, i: int, node: Node) -> Pool:
    return replace(pool, nodes=(*pool.nodes[:i], node, *pool.nodes[i + 1 :]))


def _weighed(node: Node, weight: float, now: float) -> Node:
    return replace(node, weight=node.weight_at(now) + weight, weighed_at=now)


def _moved(node: Node, head: int, now: float, *, vouched: bool) -> Node:
    node = replace(node, vouched=head) if vouched else node
    if head > node.top:
        return replace(node, head=head, top=head, moved_at=now)
    return replace(node, head=head)


def _fault_of_head(pool: Pool, i: int, before: int | None, now: float) -> Reason | None:
    """What is wrong with the head that node `i` has just told."""
    node, limits = pool.nodes[i], pool.limits
    head = node.head or 0
    if before is not None and before - head > limits.lag_blocks:
        return "stale"
    if max(pool.best_head(i, now), pool.committed) - head > limits.lag_blocks:
        return "lag"
    # Small steps back and forth are ordinary behind a load balancer; they are no fault, and no moving either.
    if now - node.moved_at > limits.stale_s and pool.best_head(i, now) > head:
        return "stale"
    return None


def _passed_over(
    pool: Pool, i: int, reason: Reason, *, now: float, aside: bool, was_first: bool
) -> tuple[Pool, Verdict | None]:
    if len(pool.nodes) == 1:
        return pool, None
    order = _last(pool.order, i)
    if aside and not pool.nodes[i].is_aside(now):
        node = _put_aside(pool.nodes[i], reason, pool.limits, now)
        pool = replace(_with(pool, i, node), order=order)
        return pool, Verdict(reason, node.aside_until - now)
    return replace(pool, order=order), Verdict(reason) if was_first else None


def _last(order: Sequence[int], i: int) -> tuple[int, ...]:
    return (*(at for at in order if at != i), i)


def _put_aside(node: Node, reason: Reason, limits: Limits, now: float) -> Node:
    rested = now - node.aside_until > FORGIVEN_AFTER * limits.aside_s
    asides = 1 if rested or not node.asides else node.asides + 1
    first = limits.aside_s * (GRAVE if reason in _LIES else 1)
    pause = min(LONGEST * limits.aside_s, first * 2.0 ** (asides - 1))
    return Node(asides=asides, aside_until=now + pause, aside_for=reason)


__all__ = [
    "BatchSize", "Failed", "Knows", "Lied", "Limits", "Node", "Pool", "Reason", "Seen", "Told", "Verdict", "liars",
    "observe",
]  # fmt: skip
