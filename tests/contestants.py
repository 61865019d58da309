"""How far somebody is in a challenge, computed the plain way: one pass over all of their rows, fractions, no SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

INTO = {"vault_deposit", "yield_lock"}
OUT_OF = {"vault_withdraw", "yield_unlock"}


@dataclass(frozen=True)
class Rules:
    """A challenge and what its participant was frozen with."""

    measure: str
    start: datetime
    end: datetime
    target: Decimal | None
    joined: datetime
    zone: str
    budget: Decimal | None
    buckets: frozenset[str]


@dataclass(frozen=True)
class Result:
    score: int
    amount: Decimal | None
    unpriced: int


def plainly(rules: Rules, rows: Iterable[Mapping[str, Any]], *, sorted_ids: Iterable[str], now: datetime) -> Result:
    """`rows`: all ledger rows of the user; `sorted_ids`: transactions with a category."""
    mine = [row for row in rows if row["canonical"] and row["role"] == "owner"]
    mine.sort(key=lambda row: (row["chain_id"], row["block_number"], row["log_index"]))
    if rules.measure == "savings_progress":
        return _savings(rules, mine)
    known = set(sorted_ids)
    counted = [row for row in mine if rules.start <= row["block_time"] < rules.end and _counts(row, known)]
    if rules.measure == "budget_kept":
        return _budget(rules, [row for row in counted if row["block_time"] >= rules.joined])
    return Result(_days(rules, counted, now), None, 0)


def _counts(row: Mapping[str, Any], known: set[str]) -> bool:
    if row["type"] == "transfer":
        own = row["counterparty"] == row["user_address"]
        return row["direction"] == "out" and row["id"] in known and not own
    return bool(row["type"] == "spend")


def _savings(rules: Rules, rows: Sequence[Mapping[str, Any]]) -> Result:
    begin = max(rules.start, rules.joined)
    held: dict[tuple[Any, ...], int] = {}
    net: dict[tuple[int, str], int] = {}
    low: dict[tuple[int, str], Fraction] = {}
    high: dict[tuple[int, str], Fraction] = {}
    unpriced = 0
    for row in rows:
        inside = begin <= row["block_time"] < rules.end and row["amount"] > 0
        token, units = (row["chain_id"], row["token"]), int(row["amount"])
        price = None if row["usd"] is None or not units else Fraction(row["usd"]) / units
        place = (row["chain_id"], row["wallet"], row["token"])
        sign = 0
        match row["type"]:
            case "bucket_funding":
                sign = int(row["bucket_id"] in rules.buckets)
            case "bucket_transfer":
                sign = int(row["to_bucket_id"] in rules.buckets) - int(row["bucket_id"] in rules.buckets)
            case "spend":
                sign = -int(row["bucket_id"] in rules.buckets)
            case "emergency_withdraw" if row["amount"] > 0:
                lay, held[place] = held.get(place, 0), 0
                if inside and lay > 0:
                    net[token] = net.get(token, 0) - lay
                    if price is not None:
                        high[token] = max(high.get(token, price), price)
                continue
            case kind if kind in INTO:
                sign = 1
            case kind if kind in OUT_OF:
                sign = -1
            case "account_operation" if row["account_type"] != "spending":
                sign = {"in": 1, "out": -1}.get(row["direction"], 0)
        if row["type"] in ("bucket_funding", "bucket_transfer", "spend"):
            held[place] = held.get(place, 0) + sign * units
        if not inside or not sign:
            continue
        if price is not None:
            high[token] = max(high.get(token, price), price)
        if sign > 0 and price is None:
            unpriced += 1
            continue
        if sign > 0 and price is not None:
            low[token] = min(low.get(token, price), price)
        net[token] = net.get(token, 0) + sign * units
    total = Fraction(0)
    for token, units in net.items():
        total += units * (low[token] if units > 0 else high.get(token, Fraction(0)))
    assert rules.target is not None
    cents = (total * 100).__floor__()
    score = max(0, (total * 10_000 / Fraction(rules.target)).__floor__())
    return Result(min(score, 2**53 - 1), Decimal(cents) / 100, unpriced)


def _budget(rules: Rules, rows: Sequence[Mapping[str, Any]]) -> Result:
    spent = sum((row["usd"] for row in rows if row["usd"] is not None), Decimal(0))
    assert rules.budget is not None
    whole = _worth(rules, rules.start)
    rest = _worth(rules, max(rules.start, rules.joined))
    part = max(Fraction(0), (rest - Fraction(spent)) / whole)
    return Result((part * 10_000).__floor__(), spent, sum(row["usd"] is None for row in rows))


def _worth(rules: Rules, begin: datetime) -> Fraction:
    """The monthly budget's worth of a span, hour by hour: spans in tests begin and end on whole seconds."""
    zone, total = ZoneInfo(rules.zone), Fraction(0)
    for year in range(begin.year - 1, rules.end.year + 2):
        for month in range(1, 13):
            first = datetime(year, month, 1, tzinfo=zone).astimezone(UTC)
            after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=zone).astimezone(UTC)
            inside = min(after, rules.end) - max(first, begin)
            if inside > timedelta(0):
                total += Fraction(inside // timedelta(microseconds=1), (after - first) // timedelta(microseconds=1))
    return total * Fraction(rules.budget or 0)


def _days(rules: Rules, rows: Sequence[Mapping[str, Any]], now: datetime) -> int:
    zone = ZoneInfo(rules.zone)
    bad = {row["block_time"].astimezone(zone).date() for row in rows}
    begin, count = max(rules.start, rules.joined), 0
    day: date = begin.date() - timedelta(days=3)
    while day <= rules.end.date() + timedelta(days=3):
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone)
        after = day + timedelta(days=1)
        ends = min(datetime(after.year, after.month, after.day, tzinfo=zone).astimezone(UTC), rules.end)
        if begin <= noon < rules.end and ends <= now and day not in bad:
            count += 1
        day = after
    return count
