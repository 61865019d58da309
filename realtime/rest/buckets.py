"""Buckets over REST: a user's own, those they may spend from, and who spent from them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from handlers import sharing
from handlers.errors import Invalid, NotFound
from handlers.resources import Bucket
from handlers.sharing import Narrowed
from realtime.rest import shapes
from realtime.rest.api import Path, Query, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.filtering import ChainId, Hex, Since, Until
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of
from store.history import BEGINNING, END, Position

BucketId = Annotated[str, Path("Bucket id.")]


@endpoint("GET", "/v1/buckets", tag="budgets", answers=shapes.Buckets, tagged=True, problems=(Invalid,))
async def buckets(
    call: Call,
    *,
    chain: ChainId = None,
    role: Annotated[Literal["owner", "delegate"] | None, Query("Only the user's own, or only those of others.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Answer:
    """List the user's own buckets and those they may spend from, with what they hold and who spent from them.

    Of a bucket that others own, nothing else of its owner is shown. At most the first 50 delegates of a bucket see it.
    """
    settings = call.deps.settings
    after = None if cursor is None else str(place_of(settings, "buckets", cursor)[0])
    found = await sharing.page(call.deps, call.me.user, chain_id=chain, role=role, after=after, limit=limit)
    following = None if found.next is None else cursor_of(settings, "buckets", found.next)
    return page(call, found.resources, following)


@endpoint("GET", "/v1/buckets/{id}", tag="budgets", answers=Bucket, tagged=True, problems=(NotFound,))
async def bucket(call: Call, *, id: BucketId) -> Mapping[str, object]:  # noqa: A002 - the path's own name
    """Read one bucket that the user owns or may spend from. Every other is not found."""
    return await sharing.bucket(call.deps, call.me.user, id)


@endpoint(
    "GET",
    "/v1/buckets/{id}/spends",
    tag="budgets",
    answers=shapes.BucketSpends,
    tagged=True,
    problems=(Invalid, NotFound),
)
async def spends(
    call: Call,
    *,
    id: BucketId,  # noqa: A002 - the path's own name
    spender: Annotated[Hex | None, Query("Address of who spent.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Answer:
    """List who spent what from a bucket that the user owns or may spend from, newest first.

    Everyone who shares it reads the same: neither memos nor categories, which the owner has in `/v1/transactions`.
    """
    settings = call.deps.settings
    below = None
    if cursor is not None:
        moment, last = place_of(settings, f"spends {id}", cursor)
        below = Position(datetime.fromisoformat(moment), last)
    narrowed = Narrowed(spender=spender, since=since or BEGINNING, until=until or END)
    found = await sharing.spends(call.deps, call.me.user, id, narrowed, below=below, limit=limit)
    following = None
    if found.next is not None:
        following = cursor_of(settings, f"spends {id}", found.next.block_time.isoformat(), found.next.id)
    return page(call, found.resources, following)


ROUTES = (buckets, bucket, spends)
