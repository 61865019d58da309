"""State and log over REST: snapshot, events, transactions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

import orjson
from pydantic import Field

from handlers import history
from handlers import snapshot as snapshots
from handlers.errors import FieldError, Invalid, LogTruncated, NotFound
from handlers.history import Near
from handlers.resources import Snapshot, Transaction
from realtime.rest import shapes
from realtime.rest.api import Path, Query, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.filtering import (
    Account,
    BucketWord,
    CategoryId,
    ChainId,
    Least,
    Most,
    Since,
    Text,
    Token,
    Types,
    Until,
    filters_of,
)
from realtime.rest.meaning import meaning_of
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of
from store.history import Filters, Position

EVENTS_LIMIT = 1000
DEFAULT_EVENTS = 200


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
    type: Types = None,  # noqa: A002 - the parameter's own name
    account: Account = None,
    bucket: BucketWord = None,
    token: Token = None,
    since: Since = None,
    until: Until = None,
    min: Least = None,  # noqa: A002 - the parameter's own name
    max: Most = None,  # noqa: A002 - the parameter's own name
    q: Text = None,
    category: CategoryId = None,
    mode: Annotated[
        Literal["words", "semantic"],
        Query("How `q` is meant: by its words; or by its meaning, then what is nearest comes first."),
    ] = "words",
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Answer:
    """List the user's transactions, newest first.

    What a reorg took back is not listed. By meaning, a query is compared with memo, payee's label, bucket and category.
    """
    settings = call.deps.settings
    filters = filters_of(
        call,
        chain=chain,
        types=type,
        account=account,
        bucket=bucket,
        token=token,
        since=since,
        until=until,
        least=min,
        most=max,
        category=category,
    )
    if mode == "semantic":
        return await _similar(call, filters, q, limit=limit, cursor=cursor)
    below = None
    if cursor is not None:
        time, id_ = place_of(settings, "transactions", cursor)
        below = Position(datetime.fromisoformat(time), id_)
    found = await history.transactions(call.deps, call.me.user, filters, q=q, below=below, limit=limit)
    following = None
    if found.next is not None:
        following = cursor_of(settings, "transactions", found.next.block_time.isoformat(), found.next.id)
    return page(call, found.resources, following)


async def _similar(call: Call, filters: Filters, q: str | None, *, limit: int, cursor: str | None) -> Answer:
    if q is None:
        raise Invalid("A search by meaning needs a text.", errors=[FieldError("/query/q", "is missing")])
    settings, below = call.deps.settings, None
    if cursor is not None:
        distance, time, id_ = place_of(settings, "transactions.near", cursor)
        below = Near(distance, Position(datetime.fromisoformat(time), id_))
    asked = await meaning_of(call, q)
    found = await history.similar(call.deps, call.me.user, filters, asked=asked, below=below, limit=limit)
    following = None
    if found.next is not None:
        at = found.next.position
        following = cursor_of(settings, "transactions.near", found.next.distance, at.block_time.isoformat(), at.id)
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


ROUTES = (snapshot, events, transactions, transaction)
