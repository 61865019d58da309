"""One user's live feed in the terminal: a line for each thing that happens to the client, with its milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from watchers.devnet.listener import Happening
from watchers.devnet.people import Person

_SIGNS = {"in": "+", "out": "-"}
_QUIET = frozenset({"chain_status", "ack"})


class Feed:
    """Prints happenings as they come; `heads` gives each block's first sight (ms since 1970) for the milliseconds."""

    def __init__(self, console: Console, heads: Mapping[str, float]) -> None:
        self._console = console
        self._heads = heads

    def heading(self, text: str) -> None:
        """Say what comes next."""
        self._console.print(Text(f"\n{text}", style="bold"), soft_wrap=True)

    def tell(self, one: Happening) -> None:
        """Print one line about a happening; what comes every second is left out."""
        if one.name in _QUIET or one.kind in _QUIET:
            return
        at = datetime.fromtimestamp(one.at_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
        text, style = describe(one)
        block = self._heads.get(str(one.payload.get("transaction", {}).get("blockHash")))
        taken = f"{one.at_ms - block:7.1f} ms" if block is not None else " " * 10
        seq = f"#{one.payload['seq']}" if one.durable else ""
        line = Text.assemble((at, "dim"), " ", (taken, "cyan"), " ", (f"{seq:>5}", "dim"), "  ", (text, style))
        self._console.print(line, soft_wrap=True)

    def phone(self, title: str, body: str) -> None:
        """Show what a push made appear on the phone."""
        self._console.print(Text(f"{'phone':>12}  {title}: {body}", style="bold magenta"), soft_wrap=True)

    def wallets(self, people: Sequence[Person]) -> None:
        """Show ready-made wallets to sign in with."""
        table = Table("address", "private key (of the devnet, worth nothing)", title="wallets to sign in with")
        for one in people:
            table.add_row(one.address, one.key)
        self._console.print(table)


def describe(one: Happening) -> tuple[str, str]:
    """A happening in words, and the style of its line."""
    if one.kind != "event":
        body = {key: value for key, value in one.body.items() if value is not None}
        return f"{one.kind} {' '.join(f'{key}={value}' for key, value in body.items())}", "yellow"
    words: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
        "session": (_session, "yellow"),
        "snapshot": (lambda body: f"snapshot at seq {body['seq']}, {len(body['buckets'])} buckets", "yellow"),
        "new_transaction": (_transaction, ""),
        "transaction_reverted": (_reverted, "red"),
        "transaction_categorized": (_categorized, "green"),
        "budget_update": (lambda body: f"{len(body['budgets'])} monthly budgets", "blue"),
        "budget_alert": (lambda body: f"budget alert: {body['message']}", "bold red"),
        "notification": (_notification, "magenta"),
        "unread_count": (lambda body: f"{body['unreadCount']} unread", "magenta"),
        "yield_update": (_yield, "green"),
        "bucket_update": (lambda body: f"bucket {body['bucket']['name']} {_change(body)}", "blue"),
    }
    word, style = words.get(one.name, (lambda _: one.name, ""))
    return word(one.payload), style


def amount_text(amount: Mapping[str, Any]) -> str:
    """An amount for people: `12.50 USDC`."""
    return f"{units_text(amount['raw'], amount['decimals'])} {amount['symbol']}"


def units_text(raw: str | int, decimals: int) -> str:
    """Base units as a decimal with at least two places: `12.50`."""
    whole, part = divmod(abs(int(raw)), 10**decimals)
    fraction = f"{part:0{decimals}d}".rstrip("0") if decimals else ""
    return f"{'-' if int(raw) < 0 else ''}{whole}.{fraction.ljust(2, '0')}"


def _session(body: dict[str, Any]) -> str:
    return f"session at seq {body['seq']}: recovered {body['recovered']}, replayed {body['replayed']}"


def _transaction(body: dict[str, Any]) -> str:
    moved = body["transaction"]
    sign = _SIGNS.get(moved["direction"], "")
    place = f" in {moved['bucket']}" if moved.get("bucket") else ""
    return f"{moved['type']} {sign}{amount_text(moved['amount'])}{place}{_impact(body)}"


def _categorized(body: dict[str, Any]) -> str:
    return f"categorized as {body['category']['name']} by {body['source']}, confidence {body['confidence']}"


def _notification(body: dict[str, Any]) -> str:
    return f"inbox: {body['notification']['title']}, {body['unreadCount']} unread"


def _reverted(body: dict[str, Any]) -> str:
    tx = str(body["transactionId"])
    return f"taken back by a {body['reason']}: {tx[:24]}…, corrects {len(body['corrects'])}{_impact(body)}"


def _yield(body: dict[str, Any]) -> str:
    worth = ", ".join(f"{one['protocol']} {amount_text(one['value'])}" for one in body["positions"] if one["value"])
    return f"yield {body['totalYield']} USD in all; {worth or 'not valued yet'}"


def _impact(body: dict[str, Any]) -> str:
    impacts = [one for one in body["budgetImpact"] if one["scope"] == "bucket"]
    return "".join(
        f", month {units_text(one['spentAfter'], one['decimals'])} of {units_text(one['budget'] or 0, one['decimals'])}"
        for one in impacts
    )


def _change(body: dict[str, Any]) -> str:
    bucket = body["bucket"]
    return "removed" if body.get("removed") else f"limit {bucket['monthlyLimit']}, delegates {len(bucket['delegates'])}"
