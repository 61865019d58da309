"""Sign-in: nonces, sessions, rotating tokens, revocation; every step leaves an audit entry in its own transaction.

Tokens are opaque 256-bit values. PostgreSQL holds their SHA-256 and is asked; Redis is only told.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Protocol
from uuid import UUID

from config import keys, metrics
from handlers.deps import Deps
from handlers.errors import Conflict, NotFound, TokenExpired, Unauthenticated, Unavailable
from handlers.rules.sign_in import Policy, Refusal, SignInMessage, refusal
from store import achievements, audit, log, sessions
from store.audit import Action, AuditEntry, Caller
from store.postgres import Pool, Tx, in_transaction
from store.records import Address
from store.sessions import Identity, SessionRow, UserRow

ACCESS_PREFIX = "exa_"
REFRESH_PREFIX = "exr_"
"""Prefixes let secret scanners and people tell what leaked."""

TOKEN_BYTES = 32
TOKEN_LENGTH = 47
"""Characters of a token: prefix and 43 of base64."""

NONCE_BYTES = 16
"""128 bits as hex digits: EIP-4361 takes letters and digits only."""

BAD_NONCE = Refusal("nonce", "The nonce is unknown, used or expired; ask for a new one and sign again.")
BAD_SIGNATURE = Refusal("signature", "The signature is not this address's signature of this message.")


class SignInRefused(Unauthenticated):
    """The message or its signature is not believed; the detail says what to change."""

    code, title = "sign_in_refused", "Sign-in was refused"


class RefreshRefused(Unauthenticated):
    """The refresh token does not work (any more): sign in again."""

    code, title = "refresh_refused", "Sign in again"


class RefreshReused(RefreshRefused):
    """The refresh token was used before; whoever holds its successors is signed out too."""

    code = "refresh_reused"


class SignatureCheck(Protocol):
    """Whether an account stands behind a signature: its key or its contract (realtime/signatures.py)."""

    async def __call__(self, text: str, signature: bytes, *, address: Address, chain_id: int) -> bool:
        """True when `signature` is the account's over `text`; raises Unavailable when that can't be found out."""
        ...


@dataclass(frozen=True, slots=True)
class Proof:
    """A message as it was signed, as it was read, and its signature."""

    text: str
    message: SignInMessage
    signature: bytes


@dataclass(frozen=True, slots=True)
class Nonce:
    """A value that one sign-in may use until `expires_at`."""

    value: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Fresh tokens of a session; `expires_in_s` is the access token's life."""

    access: str
    refresh: str
    expires_in_s: int
    user: UserRow


async def issue_nonce(deps: Deps) -> Nonce:
    """Hand out a nonce."""
    nonce = Nonce(secrets.token_hex(NONCE_BYTES), deps.now() + timedelta(seconds=deps.settings.nonce_ttl_s))
    await sessions.put_nonce(deps.pool, nonce.value, expires_at=nonce.expires_at)
    return nonce


async def sign_in(deps: Deps, check: SignatureCheck, proof: Proof, *, caller: Caller) -> SignedIn:
    """Begin a session for who signed; raises SignInRefused, or Unavailable when the signature could not be checked.

    A verdict spends the nonce, whichever it is. No verdict leaves it, for the same message to be sent again.
    """
    message, now = proof.message, deps.now()
    refused = refusal(message, _policy(deps), now=now) or await _doubt(deps, check, proof, now)
    if refused is None:
        outcome = await in_transaction(deps.pool, partial(_begin, deps, message, caller, now))
        if isinstance(outcome, SignedIn):
            metrics.SIGN_INS.labels(outcome="granted").inc()
            return outcome
        refused = outcome
    await in_transaction(deps.pool, partial(_record_refusal, message, refused, caller, now))
    metrics.SIGN_INS.labels(outcome="refused").inc()
    raise SignInRefused(refused.sentence)


async def refuse_malformed(deps: Deps, *, caller: Caller, reason: str) -> None:
    """Note a sign-in whose message could not even be read."""
    await audit.record(
        deps.pool, AuditEntry(None, "sign_in_refused", caller, deps.now(), {"reason": "malformed", "detail": reason})
    )
    metrics.SIGN_INS.labels(outcome="refused").inc()


async def _doubt(deps: Deps, check: SignatureCheck, proof: Proof, now: datetime) -> Refusal | None:
    """What is wrong with nonce or signature. The nonce is looked at first: without one, nobody makes us ask a node."""
    message = proof.message
    if not _lives(await sessions.nonce_end(deps.pool, message.nonce), now):
        return BAD_NONCE
    try:
        signed = await check(proof.text, proof.signature, address=message.address, chain_id=message.chain_id)
    except Unavailable:
        metrics.SIGN_INS.labels(outcome="unavailable").inc()
        raise
    return None if signed else BAD_SIGNATURE


def _lives(nonce_end: datetime | None, now: datetime) -> bool:
    return nonce_end is not None and nonce_end > now


def _policy(deps: Deps) -> Policy:
    settings = deps.settings
    return Policy(
        domain=settings.domain,
        uris=settings.sign_in_uris,
        chain_ids=deps.chains.keys(),
        nonce_life=timedelta(seconds=settings.nonce_ttl_s),
        loopback=settings.env == "development",
    )


async def _begin(deps: Deps, message: SignInMessage, caller: Caller, now: datetime, tx: Tx) -> SignedIn | Refusal:
    if not _lives(await sessions.take_nonce(tx, message.nonce), now):  # of many with this nonce, one gets here
        return BAD_NONCE
    user = message.address
    await log.lock(tx, [user])  # before anything else of the user's: whoever appends at this moment is done or waits
    await sessions.register(tx, user, chain_ids=deps.chains, at=now)
    session_id = await sessions.start(tx, user, caller, at=now)
    await audit.record(
        tx, AuditEntry(user, "sign_in", caller, now, {"sessionId": session_id, "chainId": message.chain_id})
    )
    await achievements.begin(tx, user, at=now)
    return await _issue(deps, tx, user, session_id, now)


async def _record_refusal(message: SignInMessage, refused: Refusal, caller: Caller, now: datetime, tx: Tx) -> None:
    await sessions.take_nonce(tx, message.nonce)
    await audit.record(tx, AuditEntry(message.address, "sign_in_refused", caller, now, {"reason": refused.reason}))


async def _issue(deps: Deps, tx: Tx, user: Address, session_id: str, now: datetime) -> SignedIn:
    settings = deps.settings
    access, refresh_ = _token(ACCESS_PREFIX), _token(REFRESH_PREFIX)
    access_ends = now + timedelta(seconds=settings.access_token_ttl_s)
    refresh_ends = now + timedelta(seconds=settings.refresh_token_ttl_s)
    await sessions.add_access(tx, session_id, fingerprint(access), expires_at=access_ends)
    await sessions.add_refresh(tx, session_id, fingerprint(refresh_), expires_at=refresh_ends)
    return SignedIn(access, refresh_, settings.access_token_ttl_s, await _user(tx, user))


def _token(prefix: str) -> str:
    return prefix + secrets.token_urlsafe(TOKEN_BYTES)


def fingerprint(token: str) -> bytes:
    """SHA-256 of a token: what is stored. No salt and no stretching, since a token is 256 random bits."""
    return sha256(token.encode("utf-8", errors="replace")).digest()


async def refresh(deps: Deps, token: str, *, caller: Caller) -> SignedIn:
    """Exchange a refresh token for new tokens; raises RefreshRefused, RefreshReused, or Conflict for a lost race.

    A token that was used up before this call began is stolen or replayed: its session is revoked. One that another
    call used up while this one waited is a race of the same client (two tabs): it gets nothing and revokes nothing.
    """
    began = deps.now()
    outcome = await in_transaction(deps.pool, partial(_rotate, deps, fingerprint(token), caller, began))
    if isinstance(outcome, SignedIn):
        return outcome
    if isinstance(outcome, RefreshReused):
        await deps.publisher.wake(keys.REVOCATIONS)
    raise outcome


async def _rotate(
    deps: Deps, token_hash: bytes, caller: Caller, began: datetime, tx: Tx
) -> SignedIn | RefreshRefused | Conflict:
    row, now = await sessions.lock_refresh(tx, token_hash), deps.now()
    if row is None:
        return RefreshRefused("This refresh token is unknown; sign in again.")

    async def note(action: Action, **metadata: object) -> None:
        await audit.record(tx, AuditEntry(row.user, action, caller, now, {"sessionId": row.session_id, **metadata}))

    if row.revoked:
        await note("refresh_refused", reason="revoked")
        return RefreshRefused("This session was ended; sign in again.")
    if row.used_at is not None:
        if began < row.used_at:
            return Conflict("Another call used this refresh token at the same moment; use what that one got.")
        await sessions.revoke(tx, row.user, row.session_id, reason="refresh_reused")
        await note("refresh_reused")
        return RefreshReused("This refresh token was used before, so its session was ended; sign in again.")
    if row.expires_at <= now:
        await note("refresh_refused", reason="expired")
        return RefreshRefused("This refresh token has expired; sign in again.")
    await sessions.use_refresh(tx, row.session_id, token_hash, at=now)
    await note("refresh")
    return await _issue(deps, tx, row.user, row.session_id, now)


async def owner_of(deps: Deps, refresh_token: str) -> Address | None:
    """Whose refresh token this is; None when it is nobody's."""
    return await sessions.refresh_owner(deps.pool, fingerprint(refresh_token))


async def authenticate(deps: Deps, token: str) -> Identity:
    """Whose access token this is; raises Unauthenticated or TokenExpired."""
    if not token.startswith(ACCESS_PREFIX) or len(token) != TOKEN_LENGTH:
        raise Unauthenticated("The access token is malformed; send the accessToken of a sign-in.")
    identity = await sessions.identity(deps.pool, fingerprint(token))
    if identity is None:
        raise Unauthenticated("The access token is unknown or its session was ended; sign in again.")
    refuse_expired(identity, now=deps.now())
    return identity


def refuse_expired(identity: Identity, *, now: datetime) -> None:
    """Raise TokenExpired at the end of the token's life."""
    if identity.expires_at <= now:
        raise TokenExpired("The access token has expired; refresh it.")


async def log_out(deps: Deps, identity: Identity, *, caller: Caller) -> None:
    """End the caller's own session."""
    await _end(deps, identity, identity.session_id, action="logout", caller=caller)


async def end_session(deps: Deps, identity: Identity, session_id: str, *, caller: Caller) -> None:
    """End one of the caller's sessions; raises NotFound for what is none of them, other people's too."""
    ended = _is_uuid(session_id) and await _end(deps, identity, session_id, action="session_revoked", caller=caller)
    if not ended:
        raise NotFound("You have no live session of this id.")


async def end_sessions(deps: Deps, identity: Identity, *, caller: Caller) -> None:
    """End every session of the caller, this one too."""
    await _end(deps, identity, None, action="sessions_revoked", caller=caller)


async def _end(deps: Deps, identity: Identity, session_id: str | None, *, action: Action, caller: Caller) -> list[str]:
    async def body(tx: Tx) -> list[str]:
        ended = await sessions.revoke(tx, identity.user, session_id, reason=action)
        if ended:
            facts = {"sessionIds": ended, "by": identity.session_id}
            await audit.record(tx, AuditEntry(identity.user, action, caller, deps.now(), facts))
        return ended

    ended = await in_transaction(deps.pool, body)
    if ended:
        await deps.publisher.wake(keys.REVOCATIONS)
    return ended


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


async def sessions_of(deps: Deps, identity: Identity) -> list[SessionRow]:
    """The caller's live sessions, the last used first."""
    return await sessions.sessions_of(deps.pool, identity.user, now=deps.now())


async def _user(conn: Tx | Pool, address: Address) -> UserRow:
    user = await sessions.user(conn, address)
    if user is None:
        raise Unauthenticated("This account is gone; sign in again.")
    return user


def user_resource(user: UserRow) -> Mapping[str, object]:
    """A profile as `user` of CONTRACT."""
    return {
        "address": user.address,
        "displayName": user.display_name,
        "avatarUrl": user.avatar_url,
        "timeZone": user.time_zone,
        "locale": user.locale,
        "riskProfile": user.risk_profile,
        "aiConsent": user.ai_consent,
    }
