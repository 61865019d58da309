"""What positions earned between two times, and what an evening says of its day. Pure.

A position's gain up to a time is what it is worth beyond its principal, and what was realised before. What a user pays
in raises worth and principal alike, what is taken out turns worth into principal given back and gain realised: so a
difference of gains is what was earned in between, whatever was paid in or taken out. It is counted in the asset and
valued at the newest price; what the asset itself did on its market is no yield.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal

from config.chains import Chain
from handlers.events import YieldUpdate
from handlers.rules.ids import event_id
from handlers.rules.money import dollars
from handlers.rules.prices import EXACT, Prices
from handlers.rules.summary import Total
from handlers.rules.yields import past_value
from store.notifications import Notice
from store.records import Address
from store.yields import PastPosition, Position

KIND = "yield_update"
CENT = Decimal("0.01")


def earned(
    positions: Iterable[Position],
    then: Iterable[PastPosition],
    latest: Iterable[PastPosition],
    *,
    chains: Mapping[int, Chain],
    prices: Prices,
) -> Total:
    """Yield of these positions (closed ones too) since `then`; `unpriced`: gains whose worth nobody knows.

    `latest` are the same at the newest kept prices. A kept price and the value that was told last are read at different
    times; the later one counts, so that an end never lies before its beginning.
    """
    before, after = ({one.position_id: one for one in each} for each in (then, latest))
    total = Total()
    for position in positions:
        chain = chains.get(position.chain_id)
        if chain is None:
            continue
        began, now = before.get(position.position_id), _newest(position, after.get(position.position_id))
        start = _gain(began.realized, began.principal, past_value(began)) if began else 0
        if start is None or now is None:
            total = total.plus(None)
        elif now != start:
            total = total.plus(prices.usd(chain, position.asset, now - start))
    return total


def _newest(position: Position, kept: PastPosition | None) -> int | None:
    value = position.value
    if position.is_open and kept and kept.price and (value is None or kept.price.at > position.as_of):
        value = past_value(kept)
    return _gain(position.realized, position.principal, value)


def _gain(realized: int, principal: int | None, value: int | None) -> int | None:
    """A principal that is not known begins with the first value: until then nothing was gained."""
    if principal is None:
        return realized
    return None if value is None else realized + value - principal


# The evening --------------------------------------------------------------------------------------------------------


def in_cents(amount: Decimal) -> Decimal:
    """As it is shown: a day that comes to no cent has nothing to say."""
    return amount.quantize(CENT, ROUND_HALF_EVEN, EXACT)


def told_id(user: Address, day: date) -> str:
    """Id of the `yield_update` of a user's evening."""
    return event_id(YieldUpdate.name, user, "evening", day.isoformat())


def notice(user: Address, day: date, today: Total, *, total_yield: Decimal, at: datetime) -> Notice:
    """The inbox entry of a day that earned or lost something; a phone is told once a day of the user's calendar."""
    cents = in_cents(today.usd)
    verb, end = ("earned", "!") if cents > 0 else ("lost", ".")
    body = f"Your investments {verb} ${abs(cents):,} today{end}"
    if today.unpriced:
        body += f" Not counted, for want of a price: {today.unpriced}."
    return Notice(
        user=user,
        event_id=told_id(user, day),
        kind=KIND,
        title="Portfolio Update",
        body=body,
        severity="info",
        transaction_id=None,
        created_at=at,
        facts={"daily_yield": dollars(today.usd), "total_yield": dollars(total_yield)},
        subject=f"yield:{day.isoformat()}",
    )
