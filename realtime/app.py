"""The web process put together: REST routes, Socket.IO server, and what each is given of the rest."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from handlers import audit, budgets, categorizing, history, notifications, snapshot
from handlers.auth import SignatureCheck
from handlers.commands import Command, MarkRead, SetCategory, SimulateSpend
from handlers.deps import Deps, Figures
from handlers.rules.heights import ChainHeights
from handlers.snapshot import Snapshot
from realtime import ports, sockets
from realtime.auth import Tokens
from realtime.limits import Limiter
from realtime.openapi import document
from realtime.peers import Peers
from realtime.ports import Ports, RequestFacts
from realtime.rest.boundary import boundary
from realtime.rest.call import WEB, Web, Writes
from realtime.rest.routes import ENDPOINTS
from realtime.rest.streams import Streams
from realtime.sockets import RealtimeServer
from store import acks, log, sessions
from store.answers import Answers
from store.audit import Caller
from store.clickhouse import Analytics
from store.limits import Cells
from store.objects import open_objects
from store.questions import Questions
from store.records import Address, Entry, Head
from store.redis import Client

BODY_BYTES = 64 * 1024
"""Largest REST body (bytes): the largest of ours, a sign-in, has some 20 KiB. Sockets have their own bounds."""
WRITES_S = 3.0
"""Time that transactions of clients who have gone may take at a stop (s)."""
BAD_REQUESTS_EVERY_S = 60.0
"""Least time between two log lines about what is no HTTP (s): garbage must not become a log flood."""

SERVER: web.AppKey[RealtimeServer] = web.AppKey("server", RealtimeServer)


def build(deps: Deps, redis: Client, signatures: SignatureCheck) -> web.Application:
    """The application; it starts and stops its Socket.IO server, and leaves pools to its caller."""
    limiter, tokens = Limiter.of(Cells(redis), deps.settings), Tokens(deps)
    app = web.Application(middlewares=[boundary], client_max_size=BODY_BYTES)
    app[WEB] = Web(
        deps=deps,
        tokens=tokens,
        signatures=signatures,
        limiter=limiter,
        peers=Peers.of(deps.settings),
        redis=redis,
        writes=Writes(),
        openapi=document(ENDPOINTS),
        objects=open_objects(deps.settings),
        streams=Streams(),
        questions=Questions(redis),
        figures=Figures(deps, Analytics(deps.settings.clickhouse_url), Answers(redis)),
    )
    for each in ENDPOINTS:
        app.router.add_route(each.method, each.pattern, each.handle)
        if each.method == "GET":
            app.router.add_route("HEAD", each.pattern, each.handle)
    app[SERVER] = sockets.build(
        app,
        Ports(
            auth=tokens,
            log=_Log(deps),
            snapshots=_Snapshots(deps),
            acks=_Acks(redis),
            audit=_Audit(deps),
            limits=limiter,
            actions=_Actions(deps),
            chains=_Chains(deps),
        ),
        deps.settings,
    )
    app.cleanup_ctx.append(_running)
    app.on_shutdown.append(_stop_sockets)
    _quiet_bad_requests()
    return app


async def _running(app: web.Application) -> AsyncIterator[None]:
    await app[SERVER].start()
    yield
    await app[WEB].writes.ended(timeout_s=WRITES_S)
    await app[WEB].objects.close()
    await app[WEB].figures.analytics.close()


async def _stop_sockets(app: web.Application) -> None:
    # Before aiohttp waits for its connections: clients are told to go elsewhere while the others finish.
    await app[SERVER].stop()


def _quiet_bad_requests() -> None:
    """What is no HTTP costs a line of log a minute, without a traceback: anyone can send it, at any rate."""
    logger = logging.getLogger("aiohttp.server")
    for old in [each for each in logger.filters if isinstance(each, BadRequests)]:
        logger.removeFilter(old)
    logger.addFilter(BadRequests())


class BadRequests(logging.Filter):
    """Lets one record a minute about bad HTTP pass; `clock` tells seconds. Other faults of requests all pass."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._silent_until = -inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; the traceback of bad HTTP never is."""
        if not (record.exc_info and isinstance(record.exc_info[1], BadHttpMessage)):
            return True
        record.exc_info = None
        if self._clock() < self._silent_until:
            return False
        self._silent_until = self._clock() + BAD_REQUESTS_EVERY_S
        return True


@dataclass(frozen=True, slots=True)
class _Log:
    deps: Deps

    async def heads(self, users: Sequence[Address]) -> Mapping[Address, Head]:
        return await log.heads(self.deps.pool, users)

    async def after(self, user: Address, seq: int, *, limit: int, max_bytes: int) -> Sequence[Entry]:
        return await log.after(self.deps.pool, user, seq, limit=limit, max_bytes=max_bytes)


@dataclass(frozen=True, slots=True)
class _Snapshots:
    deps: Deps

    async def snapshot(self, user: Address) -> Snapshot:
        return await snapshot.read(self.deps, user)


@dataclass(frozen=True, slots=True)
class _Acks:
    redis: Client

    async def acked(self, user: Address, session_id: str, seq: int) -> None:
        await acks.acked(self.redis, user, session_id, seq)


@dataclass(frozen=True, slots=True)
class _Audit:
    deps: Deps

    async def refused_join(self, identity: ports.Identity, room: str, facts: RequestFacts) -> None:
        who = sessions.Identity(identity.user, identity.session_id, identity.expires_at)
        await audit.refused_join(self.deps, who, room, caller=Caller(facts.remote, facts.user_agent))


@dataclass(frozen=True, slots=True)
class _Actions:
    deps: Deps

    async def act(self, user: Address, command: Command) -> Mapping[str, object]:
        match command:
            case MarkRead(notification_ids=ids, up_to=up_to):
                return {"unreadCount": await notifications.mark_read(self.deps, user, ids=ids, up_to=up_to)}
            case SetCategory():
                changed = await categorizing.choose(
                    self.deps,
                    user,
                    command.transaction_id,
                    str(command.category_id),
                    apply_to_similar=command.apply_to_similar,
                )
                return {"changed": changed}
            case SimulateSpend():
                return await budgets.simulate(
                    self.deps,
                    user,
                    chain_id=command.chain_id,
                    bucket=command.bucket,
                    token=command.token,
                    amount=int(command.amount),
                )
        raise TypeError(f"{command.name} has no action")


@dataclass(frozen=True, slots=True)
class _Chains:
    deps: Deps

    async def heights(self) -> Mapping[int, ChainHeights]:
        return await history.chain_heights(self.deps)

    async def unfinal(self, users: Sequence[Address]) -> Mapping[Address, Mapping[int, int]]:
        return await history.unfinal(self.deps, users)
