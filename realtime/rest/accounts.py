"""Accounts over REST: which there are and what each holds; naming one, putting one away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool

from handlers import accounts
from handlers.accounts import AccountChanges
from handlers.errors import NotFound, PreconditionFailed
from handlers.resources import Amount, Resource
from handlers.rules.accounts import Place, account_id, account_of
from handlers.rules.texts import plain
from realtime.rest import shapes
from realtime.rest.api import Body, Header, Path, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.changes import Changes, is_not
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of

NAME_MAX = 64
"""Characters of an account's name."""


def _name(text: str) -> str:
    shown = plain(text)
    if not shown or len(shown) > NAME_MAX:
        raise ValueError(f"should have something to show, and at most {NAME_MAX} characters")
    return shown


class Account(Resource):
    """One of the three accounts of a user on a chain; without a name of its own it is shown by its type.

    Spending holds what lies at the own address and in budget wallets, investment what its positions are worth.
    """

    id: Annotated[str, Field(description="`eip155:<chainId>:<address>:<accountType>`.")]
    chain_id: int
    account_type: Literal["spending", "investment", "savings"]
    account_name: str | None
    is_active: bool
    balances: list[Amount]


class Accounts(shapes.Listed):
    """Accounts by chain and type."""

    data: list[Account]


class AccountPatch(Changes):
    """What to change; what is left out stays. `accountName` null: shown by its type again."""

    account_name: Annotated[str, Field(max_length=4 * NAME_MAX), AfterValidator(_name)] | None = None
    is_active: StrictBool = True


AccountId = Annotated[str, Path("Account id, `eip155:<chainId>:<address>:<accountType>`.")]


@endpoint("GET", "/v1/accounts", tag="accounts", answers=Accounts, tagged=True)
async def list_accounts(call: Call, *, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Answer:
    """List the user's accounts on every chain: spending from the first event, the others from what opened them."""
    settings, user = call.deps.settings, call.me.user
    after: Place | None = None
    if cursor is not None:
        after = account_of(str(place_of(settings, "accounts", cursor)[0]))
    found = await accounts.listed(call.deps, user, after=after, limit=limit)
    following = None
    if found.next is not None:
        following = cursor_of(settings, "accounts", account_id(user, found.next.chain_id, found.next.type))
    return page(call, found.data, following)


@endpoint("GET", "/v1/accounts/{id}", tag="accounts", answers=Account, tagged=True, problems=(NotFound,))
async def account(call: Call, *, id: AccountId) -> Mapping[str, object]:  # noqa: A002 - the path's own name
    """Read one account."""
    return await accounts.read(call.deps, call.me.user, id)


@endpoint(
    "PATCH",
    "/v1/accounts/{id}",
    tag="accounts",
    answers=Account,
    scope="write",
    writes=True,
    tagged=True,
    problems=(NotFound, PreconditionFailed),
)
async def change_account(
    call: Call,
    *,
    id: AccountId,  # noqa: A002 - the path's own name
    body: Annotated[AccountPatch, Body()],
    if_match: Annotated[str | None, Header("If-Match", "ETag of the account that the change is meant for.")] = None,
) -> Mapping[str, object]:
    """Rename an account, or put it away; what the chain says of it goes on being told."""
    changes = AccountChanges()
    if "account_name" in body.model_fields_set:
        changes["name"] = body.account_name
    if "is_active" in body.model_fields_set:
        changes["active"] = body.is_active
    return await accounts.change(call.deps, call.me.user, id, changes, unless=is_not(if_match))


ROUTES = (list_accounts, account, change_account)
