"""What lists and exports of transactions are narrowed by: the same parameters, with the same meaning."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from handlers.resources import TransactionType
from realtime.rest.api import Query
from realtime.rest.call import Call
from store.history import BEGINNING, END, Filters
from store.records import AccountType


def _moment(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None and moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("should be a time with a zone, like 2026-11-24T10:00:00Z")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("should hold printable characters only")
    return text


Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
Word = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_printable)]
Hex = Annotated[str, StringConstraints(pattern=r"^0[xX][0-9a-fA-F]{40}$", to_lower=True)]
Usd = Annotated[Decimal, Field(ge=0, max_digits=40, decimal_places=18), WithJsonSchema({"type": "string"})]

ChainId = Annotated[int | None, Query("Chain id."), Field(ge=1, lt=2**63)]
Types = Annotated[list[TransactionType] | None, Query("Type; repeat it for several.")]
Account = Annotated[AccountType | None, Query("Account type.")]
BucketWord = Annotated[Word | None, Query("Id or exact name of a bucket that money left or reached.")]
Token = Annotated[Hex | None, Query("Token address.")]
Since = Annotated[Moment | None, Query("Earliest block time, inclusive.", name="from")]
Until = Annotated[Moment | None, Query("Latest block time, exclusive.", name="to")]
Least = Annotated[Usd | None, Query("Least amount in US dollars; leaves out what has no price.")]
Most = Annotated[Usd | None, Query("Largest amount in US dollars; leaves out what has no price.")]
CategoryId = Annotated[UUID | None, Query("Id of a category.")]
Text = Annotated[
    Word | None,
    Query(
        "Words of a memo, a counterparty's label, a bucket or a category, in any order, letter case and accents "
        "aside: parts of three characters on, or nearly so where nothing has the part itself; `0x…` is the "
        "beginning of a counterparty's address or a transaction hash. All of it has to fit."
    ),
]


def filters_of(
    call: Call,
    *,
    chain: int | None,
    types: list[TransactionType] | None,
    account: AccountType | None,
    bucket: str | None,
    token: str | None,
    since: datetime | None,
    until: datetime | None,
    least: Decimal | None,
    most: Decimal | None,
    category: UUID | None,
) -> Filters:
    """The filters that these parameters mean, words aside."""
    return Filters(
        chain_ids=[each for each in call.deps.chains if chain is None or each == chain],
        types=types,
        account_type=account,
        bucket=bucket,
        token=token,
        since=since or BEGINNING,
        until=until or END,
        min_usd=least,
        max_usd=most,
        category=category,
    )
