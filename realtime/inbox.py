"""Commands of one socket, answered one after the other; sockets do not wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from config import keys
from handlers import commands
from handlers.commands import Ack, Command, JoinUserRoom, Renew, SubscribeNotifications
from handlers.errors import Forbidden, Internal, Invalid, Problem, RateLimited, TokenExpired, Unavailable
from handlers.rules.periods import iso
from realtime import frames
from realtime.fanout import Hub, Member
from realtime.ports import Identity, Ports
from realtime.protocol import SocketServer
from realtime.repair import Repair, passes

log = structlog.get_logger(__name__)

WAITING = 32
"""Commands of one socket that may wait; one more is refused as rate limited."""
COMMAND_S = 10.0
"""Time one command may take (s)."""

Answer = Callable[[Member, Any], Awaitable[dict[str, Any]]]


class Inbox:
    """Answers commands. Also holds how long each socket's access token lasts, since `renew` changes that."""

    def __init__(self, hub: Hub, repair: Repair, ports: Ports) -> None:
        self._hub, self._repair, self._ports = hub, repair, ports
        self._answers: Mapping[type[Command], Answer] = {
            JoinUserRoom: self._join,
            SubscribeNotifications: self._join,
            Ack: self._ack,
            Renew: self._renew,
        }
        self.server: SocketServer

    # -- one after the other ---------------------------------------------------------------------------------------

    def take(self, member: Member, name: str, arguments: list[Any], *, ack_id: int | None) -> None:
        """Queue a command of an accepted socket."""
        if len(member.asked) >= WAITING:
            problem = RateLimited("Too many commands are waiting; wait for their acknowledgements.", retry_after_s=1)
            return self._acknowledge(member, ack_id, _refused(problem))
        member.asked.append((name, arguments, ack_id))
        if member.answering is None:
            member.answering = self.server.eio.in_background(self._work(member))
        return None

    async def _work(self, member: Member) -> None:
        while member.asked and member.is_in:
            name, arguments, ack_id = member.asked.pop(0)
            self._acknowledge(member, ack_id, await self._answered(member, name, arguments))
        member.answering = None

    async def _answered(self, member: Member, name: str, arguments: list[Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(COMMAND_S):
                await self._ports.limits.allow("command", member.user)
                command = commands.parse(name, arguments)
                answer: Answer = self._answers.get(type(command)) or self._act
                return {"ok": True, "data": await answer(member, command)}
        except Problem as problem:
            return _refused(problem)
        except Exception as error:  # the one place of this loop
            if passes(error):
                return _refused(Unavailable("The database does not answer; try again."))
            log.exception("a command failed", command=name, user=member.user)
            return _refused(Internal("The command failed; the fault is logged."))

    def _acknowledge(self, member: Member, ack_id: int | None, answer: dict[str, Any]) -> None:
        if ack_id is not None and member.is_in:
            member.socket.send_message(f"3{ack_id}[{orjson.dumps(answer).decode()}]")

    # -- commands --------------------------------------------------------------------------------------------------

    async def _join(self, member: Member, command: JoinUserRoom | SubscribeNotifications) -> dict[str, Any]:
        name = keys.user_room if isinstance(command, JoinUserRoom) else keys.notifications_room
        room = name(command.user_id)
        if command.user_id != member.user:
            await self._ports.audit.refused_join(_identity(member), room, member.facts)
            raise Forbidden("You may join your own rooms only.")
        return {"room": room}

    async def _ack(self, member: Member, command: Ack) -> dict[str, Any]:
        if command.seq > member.position and command.seq > (await self._repair.head(member.user)).seq:
            raise Invalid("The log has not got that far; ack what was received.")
        await self._ports.acks.acked(member.user, member.session_id, command.seq)
        return {"seq": command.seq}

    async def _renew(self, member: Member, command: Renew) -> dict[str, Any]:
        identity = await self._ports.auth.verify(command.token)
        if identity.user != member.user:
            raise Forbidden("The token is another user's; connect again to change the user.")
        if member.is_in:
            self._hub.move_session(member, identity.session_id)
            self.watch_expiry(member, identity)
        return {"expiresAt": iso(identity.expires_at)}

    async def _act(self, member: Member, command: Command) -> dict[str, Any]:
        return dict(await self._ports.actions.act(member.user, command))

    # -- sign-ins that end -----------------------------------------------------------------------------------------

    def watch_expiry(self, member: Member, identity: Identity) -> None:
        """Close a socket when its access token expires, unless it is renewed before."""
        if member.expiry is not None:
            member.expiry.cancel()
        left_s = (identity.expires_at - datetime.now(UTC)).total_seconds()
        member.expires_at = identity.expires_at
        member.expiry = asyncio.get_running_loop().call_later(max(left_s, 0), self._expired, member)

    def _expired(self, member: Member) -> None:
        expired = TokenExpired("The access token of this socket has expired; refresh it and connect again.")
        self.close(member, "token_expired", expired)

    def close(self, member: Member, reason: str, problem: Problem) -> None:
        """Say why, then disconnect."""
        farewell = frames.best_effort("session_closed", {"reason": reason, "error": problem.body()})
        self.server.dismiss(member.socket, frames.event_frame(farewell), reason=reason)


def _refused(problem: Problem) -> dict[str, Any]:
    return {"ok": False, "error": problem.body()}


@dataclass(frozen=True, slots=True)
class _Known:
    """A socket's identity, as its last token said."""

    user: str
    session_id: str
    expires_at: datetime


def _identity(member: Member) -> Identity:
    return _Known(member.user, member.session_id, member.expires_at or datetime.now(UTC))
