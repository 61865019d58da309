"""Exports over REST: transactions at once or as documents, one's own copy of everything, monthly reports."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from handlers import documents, extracts, history, reports
from handlers.documents import LinkExpired, Wanted
from handlers.errors import Conflict, NotFound, Unavailable
from handlers.extracts import TooManyNamed
from handlers.resources import Resource, Time
from handlers.rules import columns
from handlers.rules.columns import MEDIA, Format
from realtime.rest.api import Path, Query, endpoint
from realtime.rest.call import Answer, Call, Download
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
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of
from realtime.rest.shapes import Listed
from store.documents import Place

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


class Export(Resource):
    """A document: `progress` is a share of 1, null while it is not known; `url` is good until `urlExpiresAt`.

    The url is absolute, or a path of this server. The document goes at `expiresAt`.
    """

    id: str
    kind: Literal["transactions", "account", "report"]
    format: str
    status: Literal["queued", "running", "done", "failed"]
    reason: str | None
    progress: str | None
    rows: int
    total_rows: int | None
    bytes: int
    file_name: str
    media_type: str
    url: str | None
    url_expires_at: Time | None
    created_at: Time
    finished_at: Time | None
    expires_at: Time


class Exports(Listed):
    """The user's exports, newest first."""

    data: list[Export]


ExportId = Annotated[str, Path("Export id.")]


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
    later=Export,
    scope="export",
    problems=(TooManyNamed, Unavailable, Conflict),
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
) -> Download | Answer:
    """Export the user's transactions, newest first, as a file.

    More than 100,000 of them are written by a job: 202, and `Location` is where to see how far it is.
    CSV follows RFC 4180, begins with a byte order mark, and puts an apostrophe before text that a spreadsheet would run
    as a formula; amounts are exact in each format. An answer that ends without its last chunk is not whole: ask again.
    """
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
    found = await history.narrowed(deps, user, filters, q)
    if await extracts.is_large(deps, user, found):
        params = extracts.params_of(filters)
        wanted = Wanted(
            kind="transactions", format=format, media=MEDIA[format], called="transactions", params=params, q=q
        )
        return await _begun(call, wanted)
    call.web.streams.check()
    if format == "parquet":
        chunks = await extracts.parquet(deps, call.web.figures.analytics, user, found)
    else:
        chunks = extracts.stream(deps, user, found, format_=format)
    name = columns.file_name("transactions", deps.now(), format)
    headers = {"Content-Type": MEDIA[format], "Content-Disposition": columns.attachment(name)}
    return Download(chunks=chunks, streams=call.web.streams, headers=headers)


async def _begun(call: Call, wanted: Wanted) -> Answer:
    made = await documents.ask(call.deps, call.web.objects, call.me.user, wanted)
    return Answer(body=made, headers={"Location": f"/v1/exports/{made['id']}"}, later=True)


@endpoint(
    "GET",
    "/v1/me/export",
    tag="documents",
    answers=Export,
    status=202,
    scope="export",
    writes=True,
    once=True,
    problems=(Conflict,),
)
async def export_me(call: Call) -> Answer:
    """Have a copy of everything written that is kept of the user.

    One JSON object a line, `{"kind", "data"}`: profile, contacts, categories, rules, budgets, buckets, balances,
    accounts, positions, goals, memos, notifications, devices, sessions, the audit log, what models cost, and all
    transactions. Asked again while it is under way it is the same document.
    """
    wanted = Wanted(kind="account", format="ndjson", media=MEDIA["ndjson"], called="account")
    return await _begun(call, wanted)


@endpoint(
    "GET",
    "/v1/reports/{month}",
    tag="documents",
    answers=Export,
    status=202,
    scope="export",
    writes=True,
    once=True,
    problems=(NotFound, Conflict),
)
async def monthly_report(
    call: Call,
    *,
    month: Annotated[str, Path("Month in the user's time zone, as `2026-11`.")],
    format: Annotated[Literal["html", "json"], Query("html to read, json for programs.")] = "html",  # noqa: A002 - the parameter's own name
) -> Answer:
    """Have the report of a month written: spent by category, payee and bucket, beside the budgets as they are now.

    The current month's is as of now. Amounts without a price are counted beside each total.
    """
    await reports.check(call.deps, call.me.user, month)
    media = reports.MEDIA[format]
    wanted = Wanted(kind="report", format=format, media=media, called=f"report-{month}", params={"month": month})
    return await _begun(call, wanted)


@endpoint("GET", "/v1/exports", tag="documents", answers=Exports)
async def exports(call: Call, *, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Answer:
    """List the user's exports, newest first."""
    settings = call.deps.settings
    after = None
    if cursor is not None:
        moment, id_ = place_of(settings, "exports", cursor)
        after = Place(datetime.fromisoformat(moment), id_)
    found = await documents.listed(call.deps, call.web.objects, call.me.user, after=after, limit=limit)
    following = None
    if found.next is not None:
        following = cursor_of(settings, "exports", found.next.created_at.isoformat(), found.next.id)
    return page(call, found.resources, following)


@endpoint("GET", "/v1/exports/{id}", tag="documents", answers=Export, problems=(NotFound,))
async def export_status(call: Call, *, id: ExportId) -> Mapping[str, object]:  # noqa: A002 - the path's own name
    """Say how far an export is; each answer about a finished one brings a new link."""
    return await documents.read(call.deps, call.web.objects, call.me.user, _id(id))


@endpoint("DELETE", "/v1/exports/{id}", tag="documents", scope="write", writes=True, problems=(NotFound,))
async def cancel_export(call: Call, *, id: ExportId) -> None:  # noqa: A002 - the path's own name
    """Stop an export, or delete its document; links to it end with it."""
    await documents.cancel(call.deps, call.me.user, _id(id))


@endpoint(
    "GET",
    documents.PATH,
    tag="documents",
    medias=(*MEDIA.values(), *reports.MEDIA.values()),
    access="public",
    problems=(NotFound, LinkExpired),
)
async def export_file(
    call: Call,
    *,
    id: ExportId,  # noqa: A002 - the path's own name
    until: Annotated[int, Query("As the link has it."), Field(ge=0, lt=2**40)],
    signature: Annotated[str, Query("As the link has it."), Field(max_length=128)],
) -> Download:
    """Give a document to who has its link; where documents lie in a bucket, links lead there instead."""
    row = await documents.linked(call.deps, _id(id), until=until, signature=signature)
    headers = {"Content-Type": row.media, "Content-Disposition": columns.attachment(row.file_name)}
    chunks = call.web.objects.pieces(row.object)
    return Download(chunks=chunks, streams=call.web.streams, headers=headers, holds=False)


def _id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise NotFound("You have no export of this id.") from None


ROUTES = (
    export,
    export_columns,
    export_me,
    monthly_report,
    exports,
    export_status,
    cancel_export,
    export_file,
)
