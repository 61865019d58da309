"""What budget alerts say, as events, as inbox entries and to phones. Pure: figures in, words out."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from handlers.events import BudgetAlert
from handlers.rules.ids import event_id
from handlers.rules.money import dollars
from handlers.rules.periods import iso
from handlers.rules.purse import Alert, Purse
from store.notifications import Notice
from store.records import Address, Draft

ALERT_KIND = "spending_alert"


def alert_body(alert: Alert, *, causes: list[str], at: datetime) -> dict[str, object]:
    """Payload of `budget_alert`; amounts are dollars, or a bucket's raw counter."""
    is_bucket = alert.place.scope == "bucket"
    subject = {"id": alert.place.subject, "name": alert.name}
    return {
        "type": alert.crossing.type,
        "scope": alert.place.scope if is_bucket or alert.place.subject != "total" else "total",
        "category": None if is_bucket or alert.place.subject == "total" else subject,
        "bucket": subject if is_bucket else None,
        "threshold": alert.crossing.threshold,
        "spent": _figure(alert.spent, is_bucket=is_bucket),
        "budget": _figure(alert.budget, is_bucket=is_bucket),
        "utilization": f"{(alert.spent / alert.budget).quantize(Decimal('0.000001')).normalize():f}"
        if alert.budget
        else None,
        "message": message(alert),
        "severity": alert.crossing.severity,
        "timestamp": iso(at),
        "causes": causes,
    }


def alert_draft(
    alert: Alert, purse: Purse, *, because: str, cause: str, chain_id: int, transaction_id: str, at: datetime
) -> Draft:
    """`budget_alert` for the user's log; from here on its edges count as told.

    `because`: id of the event that crossed the edge; `cause`: the block behind it, for a reorg to find.
    """
    place = alert.place
    key = event_id(BudgetAlert.name, purse.user, because, place.scope, place.subject, *alert.crossing.edges)
    purse.fired(alert, key)
    return Draft(
        user=purse.user,
        event_id=key,
        event=BudgetAlert.name,
        version=BudgetAlert.version,
        body=alert_body(alert, causes=[because], at=at),
        chain_id=chain_id,
        cause=cause,
        transaction_id=transaction_id,
    )


def alert_notice(alert: Alert, user: Address, *, event_id: str, transaction_id: str | None, at: datetime) -> Notice:
    """The inbox entry of an alert; `facts` are what a push needs beside the words."""
    return Notice(
        user=user,
        event_id=event_id,
        kind=ALERT_KIND,
        title=title(alert),
        body=message(alert),
        severity=alert.crossing.severity,
        transaction_id=transaction_id,
        created_at=at,
        facts={
            "title": title(alert),
            "message": message(alert),
            "category": alert.name,
            "amount": _shown(alert, alert.spent),
        },
        subject=_effect(alert),
    )


def _effect(alert: Alert) -> str:
    """What names the alert for ever, whichever block tells it: a phone is told of it once."""
    place = alert.place
    again = (f"round {alert.round}",) if alert.round > 1 else ()
    return ":".join((place.scope, place.subject, iso(place.period_start), *alert.crossing.edges, *again))


def received_notice(user: Address, *, amount: str, event_id: str, transaction_id: str, at: datetime) -> Notice:
    """The inbox entry of money that arrived; `amount` is shown as it is."""
    return Notice(
        user=user,
        event_id=event_id,
        kind="transaction_received",
        title="Money received",
        body=f"You received {amount}.",
        severity="info",
        transaction_id=transaction_id,
        created_at=at,
        facts={"amount": amount, "transaction_id": transaction_id},
    )


def delegate_notice(
    user: Address, *, amount: str, bucket: str, event_id: str, transaction_id: str, at: datetime
) -> Notice:
    """The inbox entry of a delegate's spend from the user's bucket."""
    return Notice(
        user=user,
        event_id=event_id,
        kind="delegate_spend",
        title="A delegate spent",
        body=f"A delegate spent {amount} from {bucket}.",
        severity="info",
        transaction_id=transaction_id,
        created_at=at,
        facts={"amount": amount, "bucket": bucket, "transaction_id": transaction_id},
    )


def title(alert: Alert) -> str:
    """A few words."""
    match alert.crossing.type:
        case "over_budget":
            return f"{alert.name} is over budget"
        case "projected_overrun":
            return f"{alert.name} may go over budget"
        case _:
            return f"{alert.name} at {alert.crossing.threshold} %"


def message(alert: Alert) -> str:
    """One sentence with the figures."""
    spent, budget = _shown(alert, alert.spent), _shown(alert, alert.budget)
    match alert.crossing.type:
        case "over_budget":
            return f"You have spent {spent} of {alert.name}, more than its budget of {budget}."
        case "projected_overrun":
            return f"At this pace {alert.name} will go over its budget of {budget}; {spent} are spent."
        case _:
            return f"You have spent {alert.crossing.threshold} % of {alert.name}: {spent} of {budget}."


def _figure(value: Decimal, *, is_bucket: bool) -> str:
    return str(int(value)) if is_bucket else dollars(value)


def _shown(alert: Alert, value: Decimal) -> str:
    """An amount for people: dollars; a bucket's counter by the decimals of the chain's dollar token."""
    if alert.place.scope != "bucket":
        return f"${dollars(value)}"
    if alert.decimals is None:
        return str(int(value))
    return f"${dollars(value.scaleb(-alert.decimals))}"
