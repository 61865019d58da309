"""Memos over REST: what the user notes on a transaction, before or after it happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from handlers import history, memos
from handlers.errors import NotFound
from handlers.memos import MEMO_MAX
from handlers.resources import HashText, Resource, Transaction
from handlers.rules.texts import plain
from realtime.rest.api import Body, Path, endpoint
from realtime.rest.call import Call


def _memo(text: str) -> str:
    shown = plain(text)
    if len(shown) > MEMO_MAX:
        raise ValueError(f"should have at most {MEMO_MAX} characters")
    return shown


Text = Annotated[
    Annotated[str, Field(max_length=4 * MEMO_MAX), AfterValidator(_memo)] | None,
    Field(description=f"At most {MEMO_MAX} characters on one line; empty or null removes it."),
]


class Note(Resource):
    """A memo for one transaction."""

    memo: Text


class NoteAhead(Resource):
    """A memo for a transaction that is about to be sent."""

    chain_id: Annotated[int, Field(ge=1, lt=2**63, strict=True)]
    tx_hash: Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{64}$", description="In any letter case.")]
    memo: Text


class Memo(Resource):
    """What is noted now; null: nothing."""

    chain_id: int
    tx_hash: HashText
    memo: str | None


@endpoint(
    "PUT",
    "/v1/transactions/{id}/memo",
    tag="log",
    answers=Transaction,
    scope="write",
    writes=True,
    problems=(NotFound,),
)
async def note_transaction(
    call: Call,
    *,
    id: Annotated[str, Path("Transaction id, `<chainId>:<txHash>:<n>`.")],  # noqa: A002 - the path's own name
    body: Annotated[Note, Body()],
) -> Mapping[str, object]:
    """Note what a transaction was for; its category is thought over again.

    Only the user sees it. A transaction that was sent as a delegate is its owner's to note on, and not found here.
    """
    await memos.note_transaction(call.deps, call.me.user, id, body.memo or "")
    return await history.transaction(call.deps, call.me.user, id)


@endpoint("POST", "/v1/memos", tag="log", answers=Memo, scope="write", writes=True, once=True)
async def note_ahead(call: Call, *, body: Annotated[NoteAhead, Body()]) -> Mapping[str, object]:
    """Note what a transaction is for before it is sent.

    It is shown with each of the user's own rows of that transaction that has no memo of its own.
    """
    tx_hash = body.tx_hash.lower()
    await memos.note_ahead(call.deps, call.me.user, body.chain_id, tx_hash, body.memo or "")
    return {"chainId": body.chain_id, "txHash": tx_hash, "memo": body.memo or None}


ROUTES = (note_transaction, note_ahead)
