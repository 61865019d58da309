"""What the Socket.IO server asks of the rest of the product: one frozen bundle, filled in by realtime/app.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from handlers.commands import Command
from store.records import Address, Entry, Head


class Identity(Protocol):
    """Who a token speaks for."""

    @property
    def user(self) -> Address:
        """Lower-case address."""

    @property
    def session_id(self) -> str:
        """The sign-in that the token belongs to; revoking it closes its sockets."""

    @property
    def expires_at(self) -> datetime:
        """End of the access token's life, aware UTC."""


class Snapshot(Protocol):
    """A user's whole state at one point of the log, read in one REPEATABLE READ transaction."""

    @property
    def epoch(self) -> str:
        """Epoch of the counter row that was read."""

    @property
    def seq(self) -> int:
        """The next durable event is seq + 1."""

    @property
    def body(self) -> str:
        """Finished JSON object text `{seq, balances, ...}`."""


class Heights(Protocol):
    """How far a chain is, in block numbers."""

    @property
    def head(self) -> int:
        """Newest block that is committed here."""

    @property
    def confirmed(self) -> int:
        """Newest block with enough confirmations."""

    @property
    def finalized(self) -> int:
        """Newest block that can't be taken back."""

    @property
    def lag_blocks(self) -> int:
        """Blocks that the chain's nodes are ahead of us."""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Where a request came from: address by the trusted proxy chain, user agent as sent (capped)."""

    remote: str
    user_agent: str


class Auth(Protocol):
    """Tokens and their sessions."""

    async def verify(self, token: str) -> Identity:
        """Whose token this is; raises handlers.errors.Problem (Unauthenticated, TokenExpired, Unavailable)."""

    async def revoked_since(self, since: datetime) -> Sequence[str]:
        """Session ids revoked at or after `since` (aware UTC)."""


class Log(Protocol):
    """Per-user logs."""

    async def heads(self, users: Sequence[Address]) -> Mapping[Address, Head]:
        """Ends of these users' logs; users without a log are left out."""

    async def after(self, user: Address, seq: int, *, limit: int, max_bytes: int) -> Sequence[Entry]:
        """Entries above `seq` in order: at most `limit`, about `max_bytes` of payload, at least one if there is one."""


class Snapshots(Protocol):
    """Whole states."""

    async def snapshot(self, user: Address) -> Snapshot:
        """The user's state now."""


class Acks(Protocol):
    """What devices have shown."""

    async def acked(self, user: Address, session_id: str, seq: int) -> None:
        """Note that this session has shown every event up to `seq`."""


class Audit(Protocol):
    """The append-only record of refusals."""

    async def refused_join(self, identity: Identity, room: str, facts: RequestFacts) -> None:
        """The caller asked for a room that is not its own."""


class Limits(Protocol):
    """Rate limits."""

    async def allow(self, scope: str, subject: str) -> None:
        """Count one call; raises handlers.errors.RateLimited when it is one too many."""


class Actions(Protocol):
    """Commands that are about the user and not about the socket."""

    async def act(self, user: Address, command: Command) -> Mapping[str, object]:
        """Do what a parsed command says; returns `data` of its acknowledgement, raises handlers.errors.Problem."""


class Chains(Protocol):
    """Where the chains are."""

    async def heights(self) -> Mapping[int, Heights]:
        """Heights of every followed chain by chain id."""

    async def unfinal(self, users: Sequence[Address]) -> Mapping[Address, Mapping[int, int]]:
        """Highest block number with a transaction that is not final, by user and chain; others are left out."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything the Socket.IO server may ask."""

    auth: Auth
    log: Log
    snapshots: Snapshots
    acks: Acks
    audit: Audit
    limits: Limits
    actions: Actions
    chains: Chains
