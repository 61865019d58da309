"""Comparisons with friends: the first question of a month releases its figures, every later one reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal

from handlers.deps import Deps
from handlers.errors import NotFound
from handlers.rules import comparisons as rules
from handlers.rules.comparisons import Past, Verdict
from store import comparisons as rows
from store import log
from store.comparisons import Spent
from store.postgres import Pool, Tx, in_transaction
from store.records import Address

Shown = Mapping[str, object]
NOTHING = Spent(Decimal(0), 0)


async def compare(deps: Deps, user: Address, category_id: str | None) -> list[Shown]:
    """The user's band and that of a cohort of friends, by category or in one; raises NotFound for an unknown one."""
    shared = await rows.categories(deps.pool)
    if category_id is not None and category_id not in shared:
        if not await rows.is_own_category(deps.pool, user, category_id):
            raise NotFound("There is no category of yours with this id.")
        return [_nothing(category_id)]
    month = rules.month_closed(deps.now())
    verdict, _ = await _verdict(deps.pool, user, month)
    if verdict.release:
        verdict = await in_transaction(deps.pool, lambda tx: _release(tx, user, month, shared, at=deps.now()))
    wanted = shared if category_id is None else [category_id]
    return await _answers(deps.pool, user, wanted, verdict, month)


async def _verdict(conn: Tx | Pool, user: Address, month: date) -> tuple[Verdict, list[Address]]:
    """How a question is answered, and about whom; nothing that anyone spent is read for it."""
    cohort = await rows.cohort(conn, user, ended=_ended(month))
    present = [each for each, was in cohort.items() if was]
    past = [Past(each, members) for each, members in await rows.past(conn, user)]
    consents = await rows.consents(conn, user)
    return rules.decide(cohort, present, past, month=month, consents=consents), present


async def _release(tx: Tx, user: Address, month: date, shared: Sequence[str], *, at: datetime) -> Verdict:
    """Release a month's figures of every category at once, about one cohort; whoever asked at the same time waits.

    Asked category by category, cohorts could change between two questions, and answers be held against each other.
    """
    await log.lock(tx, [user])
    verdict, members = await _verdict(tx, user, month)
    if verdict.release:
        spent = await rows.spent(tx, members, month)
        bands = {
            key: rules.median(rules.band(spent.get((each, key), NOTHING).usd) for each in members) for key in shared
        }
        await rows.release(tx, user, month, members, bands, at=at)
    return Verdict(False, verdict.month, verdict.withheld)


async def _answers(conn: Tx | Pool, user: Address, wanted: Sequence[str], verdict: Verdict, month: date) -> list[Shown]:
    about = verdict.month or month
    own = await rows.spent(conn, [user], about)
    bands = await rows.released(conn, user, about) if verdict.month is not None else {}
    past = dict(await rows.past(conn, user)) if bands else {}
    return [
        _answer(key, own.get((user, key), NOTHING), bands.get(key), len(past.get(about, ())), about, verdict)
        for key in wanted
    ]


def _answer(category_id: str, own: Spent, cohort_band: int | None, size: int, about: date, verdict: Verdict) -> Shown:
    known = cohort_band is not None
    return {
        "categoryId": category_id,
        "month": f"{about:%Y-%m}",
        "myBand": rules.shown(rules.band(own.usd)),
        "unpriced": own.unpriced,
        "cohortBand": rules.shown(cohort_band) if cohort_band is not None else None,
        "cohortSize": size if known else None,
        "withheld": verdict.withheld if known else verdict.withheld or "no_data",
    }


def _nothing(category_id: str) -> Shown:
    """About a category that only the user has."""
    return {
        "categoryId": category_id,
        "month": None,
        "myBand": None,
        "unpriced": 0,
        "cohortBand": None,
        "cohortSize": None,
        "withheld": "no_data",
    }


def _ended(month: date) -> datetime:
    """A moment by which a month had ended for everybody."""
    following = date(month.year + month.month // 12, month.month % 12 + 1, 1)
    return datetime.combine(following, time(), UTC) + rules.SETTLED
