"""Sign-in routes: nonce, verify, refresh, logout, and the sessions of a user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from handlers import auth
from handlers.auth import Proof, RefreshRefused, SignedIn, SignInRefused
from handlers.errors import Conflict, FieldError, Invalid, NotFound
from handlers.rules.periods import iso
from realtime import siwe
from realtime.rest import shapes
from realtime.rest.api import Body, Path, endpoint
from realtime.rest.call import Call


@endpoint("POST", "/v1/auth/nonce", tag="auth", answers=shapes.Nonce, access="public", scope="auth.nonce", writes=True)
async def nonce(call: Call) -> Mapping[str, object]:
    """Get a nonce for a sign-in message.

    It works once, within its life.
    """
    issued = await auth.issue_nonce(call.deps)
    return {"nonce": issued.value, "expiresAt": iso(issued.expires_at)}


@endpoint(
    "POST",
    "/v1/auth/verify",
    tag="auth",
    answers=shapes.Tokens,
    access="public",
    scope="auth.verify",
    writes=True,
    problems=(SignInRefused,),
)
async def verify(call: Call, *, body: Annotated[shapes.Verify, Body()]) -> Mapping[str, object]:
    """Sign in with a signed EIP-4361 message.

    Domain, URI, chain id, nonce, issued-at, expiry and not-before are checked, and the signature by the account's key
    or its contract (ERC-1271, ERC-6492) on the chain that the message names. The nonce is spent either way, except by
    a 503: then the same message may be sent again.
    """
    try:
        message = siwe.parse(body.message)
    except siwe.MalformedMessage as error:
        await auth.refuse_malformed(call.deps, caller=call.caller, reason=str(error))
        raise Invalid(
            f"The message is not an EIP-4361 message: {error}.", errors=[FieldError("/message", str(error))]
        ) from None
    proof = Proof(body.message, message, bytes.fromhex(body.signature[2:]))
    return _tokens(await auth.sign_in(call.deps, call.web.signatures, proof, caller=call.caller))


@endpoint(
    "POST",
    "/v1/auth/refresh",
    tag="auth",
    answers=shapes.Tokens,
    access="public",
    scope=None,
    writes=True,
    problems=(RefreshRefused, Conflict),
)
async def refresh(call: Call, *, body: Annotated[shapes.Refresh, Body()]) -> Mapping[str, object]:
    """Exchange a refresh token for new tokens.

    Using one a second time ends its session. Of two calls at the same moment one wins; the other gets a conflict.
    """
    # Counted by user, so that people behind one address do not share ten refreshes a minute; strangers by address.
    owner = await auth.owner_of(call.deps, body.refresh_token)
    await call.charge("auth.refresh", owner or call.site)
    try:
        return _tokens(await auth.refresh(call.deps, body.refresh_token, caller=call.caller))
    except RefreshRefused:
        call.web.tokens.forget()
        raise


@endpoint("POST", "/v1/auth/logout", tag="auth", scope="auth.logout", writes=True)
async def logout(call: Call) -> None:
    """End this session; its sockets close within two seconds."""
    await auth.log_out(call.deps, call.me, caller=call.caller)
    call.web.tokens.forget()


@endpoint("GET", "/v1/auth/sessions", tag="auth", answers=shapes.Sessions, tagged=True)
async def sessions(call: Call) -> Mapping[str, object]:
    """List the live sessions of the user, the last used first."""
    data = [
        {
            "id": session.id,
            "userAgent": session.user_agent,
            "ipAddress": session.ip_address,
            "createdAt": iso(session.created_at),
            "lastUsedAt": iso(session.last_used_at),
            "current": session.id == call.me.session_id,
        }
        for session in await auth.sessions_of(call.deps, call.me)
    ]
    return {"data": data, "hasMore": False, "nextCursor": None}


@endpoint("DELETE", "/v1/auth/sessions", tag="auth", scope="auth.sessions", writes=True)
async def end_sessions(call: Call) -> None:
    """End every session of the user, this one too."""
    await auth.end_sessions(call.deps, call.me, caller=call.caller)
    call.web.tokens.forget()


@endpoint("DELETE", "/v1/auth/sessions/{id}", tag="auth", scope="auth.sessions", writes=True, problems=(NotFound,))
async def end_session(call: Call, *, id: Annotated[str, Path("Id of a session of the user.")]) -> None:  # noqa: A002 - the path's own name
    """End one session of the user; its sockets close within two seconds."""
    await auth.end_session(call.deps, call.me, id, caller=call.caller)
    call.web.tokens.forget()


def _tokens(signed_in: SignedIn) -> Mapping[str, object]:
    return {
        "accessToken": signed_in.access,
        "refreshToken": signed_in.refresh,
        "expiresIn": signed_in.expires_in_s,
        "user": auth.user_resource(signed_in.user),
    }


ROUTES = (nonce, verify, refresh, logout, sessions, end_sessions, end_session)
