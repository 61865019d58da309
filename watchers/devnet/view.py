"""What a client does with the events it receives: apply them to its snapshot. Pure; the demo and the tests compare
the result with a fresh snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Json = dict[str, Any]

KEYS = ("seq", "balances", "buckets", "budgets", "positions", "goals", "unreadCount", "achievements")
"""What a snapshot says about the user; anything else in it is about the message."""


def apply(view: Mapping[str, Any], event: str, payload: Mapping[str, Any]) -> Json:
    """The view after one durable event; the view given is left as it was. Unknown events only move `seq`."""
    match event:
        case "snapshot":
            after = {key: payload[key] for key in KEYS if key in payload}
        case "new_transaction" | "transaction_reverted":
            after = _moved(view, payload)
        case "transaction_categorized":
            after = {**view, "budgets": _with_impacts(view.get("budgets", ()), payload["budgetImpact"])}
        case "bucket_update":
            after = _with_bucket(view, payload)
        case "yield_update":
            after = {**view, "positions": _with_positions(view.get("positions", ()), payload["positions"])}
        case "budget_update":
            after = {**view, "budgets": payload["budgets"]}
        case "goal_update":
            after = {**view, "goals": _with_goal(view.get("goals", ()), payload["goal"])}
        case "achievement_unlocked" | "achievement_revoked":
            after = {**view, "achievements": _with_achievement(view.get("achievements", ()), event, payload)}
        case "category_updated":
            after = {**view, "goals": [_renamed(goal, payload["category"]) for goal in view.get("goals", ())]}
        case "notification" | "unread_count":
            after = {**view, "unreadCount": payload["unreadCount"]}
        case _:
            after = dict(view)
    return {**after, "seq": payload["seq"]}


def apply_all(view: Mapping[str, Any], events: Iterable[tuple[str, Mapping[str, Any]]]) -> Json:
    """The view after many events, given as (name, payload), in order."""
    result = dict(view)
    for event, payload in events:
        result = apply(result, event, payload)
    return result


def normal(view: Mapping[str, Any]) -> Json:
    """The view with its lists sorted by key, so that two of them compare."""
    known = {key: view[key] for key in KEYS if key in view}
    buckets = [
        {
            **bucket,
            "balances": sorted(bucket["balances"], key=lambda amount: str(amount["token"])),
            "delegates": sorted(bucket["delegates"], key=str),
        }
        for bucket in view["buckets"]
    ]
    return {
        **known,
        "balances": sorted(view["balances"], key=lambda balance: str(_balance_key(balance))),
        "positions": sorted(view.get("positions", ()), key=lambda position: str(position["positionId"])),
        "buckets": sorted(buckets, key=lambda bucket: str(bucket["id"])),
        "goals": sorted(view.get("goals", ()), key=lambda goal: str(goal["goalId"])),
        "achievements": sorted(view.get("achievements", ()), key=lambda one: str(one["code"])),
    }


def differences(ours: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[str]:
    """Where an applied view and a fresh snapshot differ, one line each; empty when they are equal."""
    mine, theirs = normal(ours), normal(fresh)
    lines: list[str] = []
    for key in KEYS:
        if mine.get(key) == theirs.get(key):
            continue
        if isinstance(mine.get(key), list) and isinstance(theirs.get(key), list):
            lines += [f"{key}: only applied: {one}" for one in mine[key] if one not in theirs[key]]
            lines += [f"{key}: only fresh: {one}" for one in theirs[key] if one not in mine[key]]
        else:
            lines.append(f"{key}: applied {mine.get(key)}, fresh {theirs.get(key)}")
    return lines


def _moved(view: Mapping[str, Any], payload: Mapping[str, Any]) -> Json:
    """The view after a transaction came or was taken back: new balances, and what its buckets have spent."""
    balances = {_balance_key(balance): balance for balance in view["balances"]}
    buckets: dict[str, Json] = {bucket["id"]: dict(bucket) for bucket in view["buckets"]}
    for balance in payload["updatedBalances"]:
        _put(balances, _balance_key(balance), balance, amount=balance["amount"])
        bucket = buckets.get(balance["bucketId"]) if balance["scope"] == "bucket" else None
        if bucket is not None:
            held = {amount["token"]: amount for amount in bucket["balances"]}
            _put(held, balance["amount"]["token"], balance["amount"], amount=balance["amount"])
            bucket["balances"] = list(held.values())
    for impact in payload["budgetImpact"]:
        # A delegate is told the impact on a bucket that is not in the delegate's own view.
        if impact["scope"] == "bucket" and impact["bucketId"] in buckets:
            period = {key: impact[key] for key in ("periodStart", "periodEnd")}
            buckets[impact["bucketId"]] |= {"spent": impact["spentAfter"], **period}
    return {
        **view,
        "balances": list(balances.values()),
        "buckets": list(buckets.values()),
        "budgets": _with_impacts(view.get("budgets", ()), payload["budgetImpact"]),
    }


def _with_impacts(budgets: Iterable[Mapping[str, Any]], impacts: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Monthly budgets after impacts on them; an impact of a month that is no longer shown changes nothing."""
    after = {(one["scope"], one["categoryId"]): dict(one) for one in budgets}
    for impact in impacts:
        known = after.get((impact["scope"], impact.get("categoryId")))
        if known is not None and known["periodStart"] == impact["periodStart"]:
            known |= {key: impact[key] for key in known.keys() & impact.keys()} | {"spent": impact["spentAfter"]}
    return list(after.values())


def _with_achievement(held: Iterable[Mapping[str, Any]], event: str, payload: Mapping[str, Any]) -> list[Any]:
    """Achievements after one of them was unlocked or taken back."""
    others = [one for one in held if one["code"] != payload["achievement"]["code"]]
    return [*others, payload["achievement"]] if event == "achievement_unlocked" else others


def _with_goal(goals: Iterable[Mapping[str, Any]], goal: Mapping[str, Any]) -> list[Any]:
    """Goals after one of them changed; one that was deleted is shown no more."""
    others = [one for one in goals if one["goalId"] != goal["goalId"]]
    return [*others, goal] if goal["isActive"] else others


def _renamed(goal: Mapping[str, Any], category: Mapping[str, Any]) -> Mapping[str, Any]:
    """A goal whose category may have another name now."""
    if goal["category"] is None or goal["category"]["id"] != category["id"]:
        return goal
    return {**goal, "category": {**goal["category"], "name": category["customName"]}}


def _with_positions(known: Iterable[Mapping[str, Any]], told: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Positions after some changed; one with neither shares nor principal is closed and no longer shown."""
    after = {one["positionId"]: dict(one) for one in known}
    for position in told:
        after[position["positionId"]] = dict(position)
        held = [position[key]["raw"] for key in ("shares", "principal") if position[key] is not None]
        if all(raw == "0" for raw in held) and position["principal"] is not None:
            del after[position["positionId"]]
    return list(after.values())


def _put(entries: dict[Any, Any], key: Any, entry: Any, *, amount: Mapping[str, Any]) -> None:
    """Set an entry, or remove it when its amount is nothing."""
    if amount["raw"] == "0":
        entries.pop(key, None)
    else:
        entries[key] = entry


def _with_bucket(view: Mapping[str, Any], payload: Mapping[str, Any]) -> Json:
    bucket = payload["bucket"]
    others = [one for one in view["buckets"] if one["id"] != bucket["id"]]
    return {**view, "buckets": others if payload.get("removed") else [*others, bucket]}


def _balance_key(balance: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes a balance the same one: chain, scope, wallet, bucket and token."""
    place = tuple(balance.get(key) for key in ("chainId", "scope", "wallet", "bucketId"))
    return (*place, balance["amount"]["token"])
