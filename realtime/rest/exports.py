"""Exports over REST: transactions as CSV, NDJSON or Parquet, with the filters of the list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from handlers import extracts, history
from handlers.errors import Unavailable
from handlers.extracts import TooManyNamed
from handlers.resources import Resource
from handlers.rules import columns
from handlers.rules.columns import MEDIA, Format
from realtime.rest.api import Query, endpoint
from realtime.rest.call import Call, Download
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

Formatted = Annotated[Format, Query("csv for spreadsheets, ndjson for programs, parquet for analysis.")]


class Column(Resource):
    """A column: `kind` is text, integer, decimal or time."""

    name: str
    kind: str
    meaning: str


class Columns(Resource):
    """The columns of a format, in its order."""

    format: Format
    columns: list[Column]


@endpoint("GET", "/v1/transactions/export/columns", tag="documents", answers=Columns, tagged=True)
async def export_columns(call: Call, *, format: Formatted = "csv") -> Mapping[str, object]:  # noqa: A002, ARG001 - the parameter's own name; every route gets its call
    """Say what the columns of an export mean.

    Parquet has neither memos nor names that the user gave, since it is made by the analytics store, which has none.
    """
    return {"format": format, "columns": columns.dictionary(format)}


@endpoint(
    "GET",
    "/v1/transactions/export",
    tag="documents",
    medias=tuple(MEDIA.values()),
    scope="export",
    problems=(TooManyNamed, Unavailable),
)
async def export(
    call: Call,
    *,
    format: Formatted,  # noqa: A002 - the parameter's own name
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
) -> Download:
    """Export the user's transactions, newest first, as a file.

    CSV follows RFC 4180, begins with a byte order mark, and puts an apostrophe before text that a spreadsheet would run
    as a formula; amounts are exact in each format. An answer that ends without its last chunk is not whole: ask again.
    """
    call.web.streams.check()
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
    user, deps = call.me.user, call.deps
    filters = await history.narrowed(deps, user, filters, q)
    if format == "parquet":
        chunks = await extracts.parquet(call.web.figures, user, filters)
    else:
        chunks = extracts.stream(deps, user, filters, format_=format)
    name = columns.file_name("transactions", deps.now(), format)
    headers = {"Content-Type": MEDIA[format], "Content-Disposition": columns.attachment(name)}
    return Download(chunks=chunks, streams=call.web.streams, headers=headers)


ROUTES = (export, export_columns)
