"""State and log over REST: snapshot, events, transactions, buckets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from handlers import history
from handlers import snapshot as snapshots
from handlers.errors import Invalid, LogTruncated, NotFound
from handlers.resources import Snapshot, Transaction, TransactionType
from realtime.rest import shapes
from realtime.rest.api import Path, Query, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of
from store.history import BEGINNING, END, Filters, Position
from store.records import AccountType

EVENTS_LIMIT = 1000
DEFAULT_EVENTS = 200


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
ChainId = Annotated[int | None, Query("Chain id."), Field(ge=1, lt=2**63)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_printable)]
Hex = Annotated[str, StringConstraints(pattern=r"^0[xX][0-9a-fA-F]{40}$", to_lower=True)]
Usd = Annotated[Decimal, Field(ge=0, max_digits=40, decimal_places=18), WithJsonSchema({"type": "string"})]


@endpoint("GET", "/v1/snapshot", tag="log", answers=Snapshot, tagged=True)
async def snapshot(call: Call) -> Answer:
    """Read everything a client shows, as of log position `seq`.

    The next durable event is `seq` + 1; the header `Expendi-Epoch` names the log's epoch.
    """
    taken = await snapshots.read(call.deps, call.me.user)
    return Answer(body=taken.body.encode(), headers={"Expendi-Epoch": taken.epoch})


@endpoint("GET", "/v1/events", tag="log", answers=shapes.Events, tagged=True, problems=(LogTruncated,))
async def events(
    call: Call,
    *,
    epoch: Annotated[str | None, Query("Epoch of the log that `after` belongs to."), Field(max_length=64)] = None,
    after: Annotated[int, Query("Last seq that the reader has."), Field(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query("Most events of one page."), Field(ge=1, le=EVENTS_LIMIT)] = DEFAULT_EVENTS,
) -> Answer:
    """Read the user's log: the same events as on the socket, byte for byte.

    410 when the epoch is another one or the log no longer reaches back to `after`: read the snapshot and go on from it.
    """
    found = await history.events(call.deps, call.me.user, epoch=epoch, after=after, limit=limit)
    # Stored payloads are spliced in as they are: read and written again they would not be the socket's bytes.
    data = ",".join(f'{{"event":"{entry.event}","payload":{entry.payload}}}' for entry in found.entries)
    rest = orjson.dumps({"epoch": found.epoch, "seq": found.seq, "hasMore": found.has_more}).decode()
    return Answer(body=f'{{"data":[{data}],{rest[1:]}'.encode())


@endpoint("GET", "/v1/transactions", tag="log", answers=shapes.Transactions, tagged=True)
async def transactions(
    call: Call,
    *,
    chain: ChainId = None,
    type: Annotated[list[TransactionType] | None, Query("Type; repeat it for several.")] = None,  # noqa: A002 - the parameter's own name
    account: Annotated[AccountType | None, Query("Account type.")] = None,
    bucket: Annotated[Word | None, Query("Id or exact name of a bucket that money left or reached.")] = None,
    token: Annotated[Hex | None, Query("Token address.")] = None,
    since: Annotated[Moment | None, Query("Earliest block time, inclusive.", name="from")] = None,
    until: Annotated[Moment | None, Query("Latest block time, exclusive.", name="to")] = None,
    min: Annotated[Usd | None, Query("Least amount in US dollars; leaves out what has no price.")] = None,  # noqa: A002 - the parameter's own name
    max: Annotated[Usd | None, Query("Largest amount in US dollars; leaves out what has no price.")] = None,  # noqa: A002 - the parameter's own name
    q: Annotated[
        Word | None,
        Query(
            "Words of a memo, a counterparty's label, a bucket or a category, in any order, letter case and accents "
            "aside: parts of three characters on, or nearly so where nothing has the part itself; `0x…` is the "
            "beginning of a counterparty's address or a transaction hash. All of it has to fit."
        ),
    ] = None,
    category: Annotated[UUID | None, Query("Id of a category.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Answer:
    """List the user's transactions, newest first.

    What a reorg took back is not listed.
    """
    settings = call.deps.settings
    filters = Filters(
        chain_ids=[each for each in call.deps.chains if chain is None or each == chain],
        types=type,
        account_type=account,
        bucket=bucket,
        token=token,
        since=since or BEGINNING,
        until=until or END,
        min_usd=min,
        max_usd=max,
        category=category,
    )
    below = None
    if cursor is not None:
        time, id_ = place_of(settings, "transactions", cursor)
        below = Position(datetime.fromisoformat(time), id_)
    found = await history.transactions(call.deps, call.me.user, filters, q=q, below=below, limit=limit)
    following = None
    if found.next is not None:
        following = cursor_of(settings, "transactions", found.next.block_time.isoformat(), found.next.id)
    return page(call, found.resources, following)


@endpoint("GET", "/v1/transactions/{id}", tag="log", answers=Transaction, tagged=True, problems=(NotFound,))
async def transaction(
    call: Call,
    *,
    id: Annotated[str, Path("Transaction id, `<chainId>:<txHash>:<n>`.")],  # noqa: A002 - the path's own name
) -> Mapping[str, object]:
    """Read one transaction of the user.

    One that a reorg took back for good has the status `reverted`. Other people's ids are not found.
    """
    return await history.transaction(call.deps, call.me.user, id)


@endpoint("GET", "/v1/buckets", tag="budgets", answers=shapes.Buckets, tagged=True, problems=(Invalid,))
async def buckets(
    call: Call,
    *,
    chain: ChainId = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Answer:
    """List the user's own buckets with what they hold."""
    settings = call.deps.settings
    after = None if cursor is None else str(place_of(settings, "buckets", cursor)[0])
    found = await history.buckets(call.deps, call.me.user, chain_id=chain, after=after, limit=limit)
    following = None if found.next is None else cursor_of(settings, "buckets", found.next)
    return page(call, found.resources, following)


ROUTES = (snapshot, events, transactions, transaction, buckets)
