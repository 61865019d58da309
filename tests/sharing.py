"""Who spent what from shared buckets, computed the plain way: one pass over all canonical blocks, no figures kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from handlers import chain_events as ce
from handlers.chain_events import DecodedBlock
from tests.recompute import MONTH

MEMBERS = 50


@dataclass
class PlainShared:
    """One bucket's spends (time, order, spender, token, raw), its members in order, and its clock."""

    delegates: list[str] = field(default_factory=list)
    shared: bool = False
    counter: int = 0
    start: datetime | None = None
    began: int = 0
    """Spends before the period at hand."""
    spends: list[tuple[datetime, str, str, int]] = field(default_factory=list)
    vague: bool = False
    """Made anew or reset in the block of a spend before it, which no contract does: that spend's period is a guess."""


def shared_buckets(blocks: Iterable[DecodedBlock]) -> dict[tuple[str, str, str], PlainShared]:
    """Every bucket by (wallet, owner, name)."""
    found: dict[tuple[str, str, str], PlainShared] = {}
    for block in blocks:
        for one in found.values():
            if one.counter and one.start is not None and block.time >= one.start + MONTH:
                one.counter, one.start, one.began = 0, None, len(one.spends)
        for event in block.events:
            if isinstance(event, ce.WalletEvent) and hasattr(event, "name"):
                one = found.setdefault((event.emitter, event.user, event.name.decode()), PlainShared())
                _fold(one, event, block.time)
    return found


def _fold(one: PlainShared, event: ce.WalletEvent, now: datetime) -> None:
    match event:
        case ce.BucketCreated():
            one.delegates, one.counter, one.start = [], 0, now
            one.vague |= bool(one.spends) and one.spends[-1][0] == now
            one.began = len(one.spends)
        case ce.MonthlyLimitReset():
            one.vague |= bool(one.spends) and one.spends[-1][0] == now
            one.counter, one.start, one.began = 0, now, len(one.spends)
        case ce.DelegateAdded():
            one.shared = True
            if event.delegate not in one.delegates:
                one.delegates.append(event.delegate)
        case ce.DelegateRemoved():
            if event.delegate in one.delegates:
                one.delegates.remove(event.delegate)
        case ce.SpentFromBucket():
            if one.start is None or now >= one.start + MONTH:
                one.counter, one.start, one.began = 0, now, len(one.spends)
            one.counter += event.amount
            one.spends.append((now, event.spender or "", event.token, event.amount))


def plain_members(one: PlainShared, owner: str) -> list[tuple[Any, ...]]:
    """(address, role, spent of the period by token, of all time, count, last) of each member; None: everyone else."""
    if not one.shared:
        return []
    people = [owner, *sorted(user for user in one.delegates[:MEMBERS] if user != owner)]
    lines = []
    for who in (*people, None):
        own = [(i, s) for i, s in enumerate(one.spends) if (s[1] if s[1] in people else None) == who]
        if who is None and not own:
            continue
        role = "former" if who is None else "owner" if who == owner else "delegate"
        now = [s for i, s in own if i >= one.began and one.start is not None]
        lines.append(
            (who, role, _sums(now), _sums([s for _, s in own]), len(own), max((s[0] for _, s in own), default=None))
        )
    return lines


def _sums(spends: Sequence[tuple[datetime, str, str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for _, _, token, raw in spends:
        sums[token] = sums.get(token, 0) + raw
    return {token: raw for token, raw in sums.items() if raw}


def shown_members(bucket: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """`members` of a bucket resource in the same form."""

    def raws(amounts: Iterable[Mapping[str, Any]]) -> dict[str, int]:
        return {each["token"]: int(each["raw"]) for each in amounts}

    return [
        (
            each["address"],
            each["role"],
            raws(each["spent"]),
            raws(each["spentTotal"]),
            each["count"],
            datetime.fromisoformat(each["lastSpentAt"]) if each["lastSpentAt"] else None,
        )
        for each in bucket["members"]
    ]


def check_shared(blocks: Sequence[DecodedBlock], user: str, snapshot: Mapping[str, Any], chain_id: int) -> int:
    """Hold what a user sees of buckets to the plain computation; returns how many of others they see."""
    plain = shared_buckets(blocks)
    seen = {(b["wallet"], b["owner"], b["name"]): b for b in snapshot["buckets"] if b["chainId"] == chain_id}
    mine = {k for k, one in plain.items() if k[1] != user and user in one.delegates[:MEMBERS]}
    assert {key for key in seen if key[1] != user} == mine
    for key, bucket in seen.items():
        assert bucket["role"] == ("owner" if key[1] == user else "delegate")
        got, expected = shown_members(bucket), plain_members(plain[key], key[1]) if key in plain else []
        if key in plain and plain[key].vague:
            got, expected = [(*g[:2], *g[3:]) for g in got], [(*e[:2], *e[3:]) for e in expected]
        assert got == expected, key
    return len(mine)
