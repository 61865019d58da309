"""Achievements: unlocked once, taken back with their cause, by looking at all facts again (docs/adr/0017).

Whatever changes a fact asks for the `evaluate` job in its own transaction; the clock asks for everyone whose day has
ended. A look compares what the facts say with what is held, and tells the difference under the user's lock. So it does
not matter how often, how late or in which order looks happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from config import keys
from handlers.deps import Deps
from handlers.events import AchievementRevoked, AchievementUnlocked, TransactionReverted, UnreadCount
from handlers.one_by_one import one_by_one
from handlers.rules import achievements as rules
from handlers.rules.achievements import Record, Rule
from handlers.rules.ids import event_id
from handlers.rules.inbox import Inbox, told_id, unread_body
from store import achievements as rows
from store import log, notifications, outbox, pushes
from store.achievements import HeldRow
from store.log import Counter
from store.notifications import Notice
from store.outbox import Claim
from store.postgres import Pool, Tx, in_transaction
from store.records import Address, Draft, Frame

Shown = Mapping[str, object]

RETRY = timedelta(minutes=5)
"""When those are looked at again of whom one's turn failed: soon, and not with every look at the clock."""
AT_ONCE = 100
"""Users whose facts one round of queries reads."""


async def listed(conn: Tx | Pool, user: Address) -> list[Shown]:
    """What a user holds, in the order of the table."""
    order = list(rules.BY_CODE)
    held = (await rows.held(conn, [user]))[user]
    shown = [rules.resource(row.code, row.unlocked_at) for row in held]
    return sorted(shown, key=lambda each: order.index(str(each["code"])) if each["code"] in order else len(order))


async def table(deps: Deps, user: Address) -> list[Shown]:
    """Every achievement as its user sees it, with progress, in the order of the table."""
    facts = await rows.facts(deps.pool, [user])
    held = {row.code: row for row in (await rows.held(deps.pool, [user]))[user]}
    if user not in facts:
        return []
    record = rules.record(facts[user], deps.now())
    return [
        rules.standing(rule, record, held[rule.code].unlocked_at if rule.code in held else None)
        for rule in rules.RULES
    ]  # fmt: skip


async def run(deps: Deps, claim: Claim) -> bool:
    """Look at those whom a request names; False when it was asked for again meanwhile."""
    match claim.args:
        case {"user": user}:
            users = [user]
        case {"chainId": chain_id, "hash": block_hash, "generation": generation}:
            users = await rows.concerned(deps.pool, chain_id, block_hash, cause=f"{block_hash}:{generation}")
        case _:
            raise ValueError(f"{claim.args!r} names nobody to look at")
    await evaluate(deps, users)
    return await in_transaction(deps.pool, lambda tx: outbox.done(tx, claim))


async def close_days(deps: Deps, *, limit: int) -> int:
    """Look at users whose day has ended, and with it perhaps a month, at most `limit`; returns at how many."""
    due = await rows.due(deps.pool, deps.now(), limit=limit)
    await evaluate(deps, due)
    return len(due)


async def evaluate(deps: Deps, users: Sequence[Address]) -> int:
    """Tell these users what their facts unlock and take back; returns how many were told anything."""
    told = 0
    for first in range(0, len(users), AT_ONCE):
        told += await _evaluate(deps, users[first : first + AT_ONCE])
    return told


async def _evaluate(deps: Deps, users: Sequence[Address]) -> int:
    now = deps.now()
    facts = await rows.facts(deps.pool, users)
    held = await rows.held(deps.pool, facts)
    # Read without locks: it only sorts out those for whom nothing changes. Who changes facts later asks again.
    moved = []
    for user, known in facts.items():
        difference = rules.difference(rules.record(known, now), [row.code for row in held[user]])
        if difference.unlocked or difference.revoked:
            moved.append(user)
    told = await one_by_one(deps, [(user, partial(_tell, deps)) for user in moved], name="evaluate")
    if told:
        await deps.publisher.wake(keys.JOBS_WAKE)
    looks = {user: rules.next_look(now, known.person.time_zone) for user, known in facts.items()}
    if told < len(moved):
        looks |= dict.fromkeys(moved, now + RETRY)
    await rows.look_again(deps.pool, looks)
    return told


async def _tell(deps: Deps, tx: Tx, counters: Mapping[Address, Counter]) -> list[Frame]:
    """The difference of one user, read again under the lock that everyone takes who changes a fact."""
    (user,) = counters
    now = deps.now()
    facts = (await rows.facts(tx, [user])).get(user)
    if facts is None:
        return []
    record = rules.record(facts, now)
    held = {row.code: row for row in (await rows.held(tx, [user]))[user]}
    difference = rules.difference(record, held)
    drafts = await _revoke(tx, user, [held[code] for code in difference.revoked], at=now)
    inbox = Inbox(
        user,
        (await notifications.allowed(tx, [user]))[user],
        (await notifications.unread(tx, [user]))[user],
    )  # fmt: skip
    rounds = await rows.rounds(tx, user) if difference.unlocked else {}
    for rule in difference.unlocked:
        drafts += await _unlock(tx, rule, record, inbox, round_=rounds.get(rule.code, 0) + 1, at=now)
    await notifications.record(tx, inbox.kept)
    frames = await log.append(tx, counters, drafts, at=now)
    await pushes.record(tx, inbox.intents, at=now, hold_s=deps.settings.push_hold_s)
    return frames


async def _unlock(tx: Tx, rule: Rule, record: Record, inbox: Inbox, *, round_: int, at: datetime) -> list[Draft]:
    user = inbox.user
    causes = await _causes(tx, user, rule, record)
    key = event_id(AchievementUnlocked.name, user, rule.code, round_)
    told = inbox.add(_notice(user, rule, key, at=at), None) if rule.is_announced else []
    row = HeldRow(rule.code, round_, key, bool(told), tuple(causes), at)
    await rows.unlock(tx, user, row)
    body = {"achievement": rules.resource(rule.code, at), "causes": causes}
    return [Draft(user, key, AchievementUnlocked.name, AchievementUnlocked.version, body), *told]


async def _causes(tx: Tx, user: Address, rule: Rule, record: Record) -> list[str]:
    """Events by which it was unlocked; none for what no event told, or what the log keeps no longer."""
    target, found = rule.target, None
    match rule.cause.kind:
        case "ledger":
            found = await rows.crossing(tx, user, rule.cause.counted, target)
        case "goal":
            found = await rows.milestone(tx, user, int(target))
        case "invested":
            found = record.invested.beyond(target)
        case "month" if record.kept_months:
            found = await rows.month_told(tx, user, record.kept_months[-1].ended)
        case _:
            pass
    return [] if found is None else [found]


async def _revoke(tx: Tx, user: Address, gone: Sequence[HeldRow], *, at: datetime) -> list[Draft]:
    """Take achievements back, and out of the inbox and off the phones; the count of the inbox is told once."""
    drafts: list[Draft] = []
    for row in gone:
        causes = await _undone_by(tx, user, row)
        await rows.revoke(tx, user, row, causes=causes, at=at)
        also = (told_id(user, row.event_id),) if row.notified else ()
        drafts.append(
            Draft(
                user,
                event_id(AchievementRevoked.name, user, row.code, row.round),
                AchievementRevoked.name,
                AchievementRevoked.version,
                {"achievement": rules.resource(row.code, row.unlocked_at), "causes": causes},
                corrects=(row.event_id, *also),
            )
        )
    keys_gone = [row.event_id for row in gone]
    await pushes.take_back(tx, user, keys_gone, at=at)
    if await notifications.correct(tx, user, keys_gone, at=at):
        left = (await notifications.unread(tx, [user]))[user]
        key = event_id(UnreadCount.name, user, "corrects", *keys_gone)
        drafts.append(Draft(user, key, UnreadCount.name, UnreadCount.version, unread_body(left)))
    return drafts


async def _undone_by(tx: Tx, user: Address, row: HeldRow) -> list[str]:
    """The events that took its causes back; else the newest that may have moved a figure since."""
    reverted = await rows.told(
        tx, user, [event_id(TransactionReverted.name, user, "corrects", cause) for cause in row.causes]
    )
    if reverted:
        return reverted
    last = await rows.last_change(tx, user, since=row.event_id)
    return [] if last is None else [last]


def _notice(user: Address, rule: Rule, key: str, *, at: datetime) -> Notice:
    return Notice(
        user=user,
        event_id=key,
        kind=rules.KIND,
        title=rule.title,
        body=rule.description,
        severity="info",
        transaction_id=None,
        created_at=at,
        facts={"code": rule.code, "tier": rule.tier, "title": rule.title, "message": rule.description},
        subject=f"achievement:{rule.code}",
    )
