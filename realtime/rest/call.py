"""One REST request as a route sees it: who calls, from where, what it may use; and what a route answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, TypeVar

import structlog
from aiohttp import web
from yarl import URL

from handlers.auth import SignatureCheck
from handlers.deps import Deps, Figures
from handlers.errors import Unauthenticated
from realtime.auth import Tokens
from realtime.limits import Limiter, refused
from realtime.peers import Peers
from realtime.rest.streams import Streams, Writing
from store.audit import Caller
from store.objects import Objects
from store.questions import Questions
from store.redis import Client
from store.sessions import Identity

logger = structlog.get_logger(__name__)

T = TypeVar("T")

IPV6_SITE = 64
"""Prefix length (bits) that one caller is given: counting single IPv6 addresses would count nothing."""


class Writes:
    """Transactions under way: a client that goes away must not cut them, and the process waits for them at its end."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end, even when the caller is cancelled meanwhile."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_note_failure)
            raise

    async def ended(self, *, timeout_s: float) -> None:
        """Wait for what is under way; what takes longer is cancelled."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def _note_failure(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        logger.warning("unattended_write_failed", error=repr(error))


@dataclass(frozen=True, slots=True)
class Web:
    """What every route may use."""

    deps: Deps
    tokens: Tokens
    signatures: SignatureCheck
    limiter: Limiter
    peers: Peers
    redis: Client
    writes: Writes
    openapi: bytes
    objects: Objects
    streams: Streams
    questions: Questions
    figures: Figures
    """What analytics routes read."""


WEB: web.AppKey[Web] = web.AppKey("web", Web)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a route answers: `body` is encoded as JSON unless it is bytes already."""

    body: Mapping[str, object] | bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    later: bool = False
    """Whether this is the other answer of a route that may answer at once or begin something (202)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """An answer that is written while it is made."""

    chunks: AsyncIterator[bytes]
    streams: Streams
    headers: Mapping[str, str]
    holds: bool = True
    """Whether making it holds a connection to the database."""

    def response(self) -> web.StreamResponse:
        """The answer as aiohttp sends it."""
        return Writing(self.chunks, self.streams, headers=self.headers, holds=self.holds)


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished answer: what goes on the wire, and what an Idempotency-Key brings back."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def response(self) -> web.Response:
        """The answer as aiohttp sends it."""
        return web.Response(status=self.status, body=self.body or None, headers=self.headers)


@dataclass(slots=True)
class Call:
    """A request on its way: `identity` is set once its token is verified, `told` are headers of the answer to come."""

    id: str
    url: URL
    web: Web
    caller: Caller
    identity: Identity | None = None
    told: dict[str, str] = field(default_factory=dict)
    cause: str | None = None
    """What names this very call where it has an Idempotency-Key: what is made under it takes its id from it."""

    @property
    def deps(self) -> Deps:
        """What handlers are given."""
        return self.web.deps

    @property
    def me(self) -> Identity:
        """Who is signed in, on a route that asks for it."""
        assert self.identity is not None
        return self.identity

    @property
    def site(self) -> str:
        """Who is counted while nobody is known: the address, of IPv6 the network that one customer has."""
        try:
            address = ip_address(self.caller.remote)
        except ValueError:
            return self.caller.remote
        if isinstance(address, IPv6Address):
            return str(ip_network((address.packed, IPV6_SITE), strict=False))
        return str(address)

    async def sign_in(self, token: str) -> None:
        """Verify the token of a request; raises Unauthenticated, TokenExpired or Unavailable."""
        if not token:
            raise Unauthenticated("Send an access token as `Authorization: Bearer`.")
        self.identity = await self.web.tokens.verify(token)

    async def charge(self, scope: str, subject: str) -> None:
        """Count this call against a limit and tell the caller; raises RateLimited."""
        verdict = await self.web.limiter.take(scope, subject)
        self.told.update(self.web.limiter.limit(scope).headers(verdict))
        if not verdict.allowed:
            raise refused(verdict)


CALL: web.RequestKey[Call] = web.RequestKey("call", Call)
