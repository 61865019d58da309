"""The invariants of the design, each broken on purpose: a simulation that does not notice is worth nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import store.persistence
from handlers import persistence, reverts
from realtime import auth
from realtime.engine import EngineServer
from realtime.fanout import Hub
from realtime.repair import Repair
from store import cursors, ledger, log, outbox
from store.chain import logs_of as chain_logs_of
from store.postgres import retrying
from store.rpc import RpcError
from tests.sim.engines import Engines
from tests.sim.world import run
from watchers import fetch, ingest

SEEDS = range(12)
"""Seeds tried on each mutation, until one notices."""


@dataclass(frozen=True)
class Mutation:
    """One way to break an invariant (its number in DESIGN section 2)."""

    invariant: int
    name: str
    broken: Callable[[], AbstractContextManager[object]]
    stress: tuple[str, ...]
    """Trouble in which it shows; none: whatever the seeds draw."""


MUTATIONS: list[Mutation] = []


def mutation(
    invariant: int, name: str, *stress: str
) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    """List a generator that breaks an invariant while it is suspended."""

    def add(broken: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        MUTATIONS.append(Mutation(invariant, name, contextmanager(broken), stress))
        return broken

    return add


Patches = Iterator[None]


@mutation(1, "published before the commit", "kill_watcher", "database_cut")
def _early() -> Patches:
    async def commit(self: Any, body: Any) -> Any:
        async def once() -> Any:
            async with self._conn.transaction():
                committed = await body(self._conn)
                await self._publish(committed)
                return committed

        return await ingest._uncancelled(retrying(once))

    with mock.patch.object(ingest.Ledger, "_commit", commit):
        yield


@mutation(2, "a gap is not repaired from the log")
def _no_repair() -> Patches:
    def out_of_step(self: Any, member: Any, seq: int) -> None:
        if seq > member.position and member.due:
            member.due = seq + 1

    with mock.patch.object(Hub, "_out_of_step", out_of_step):
        yield


@mutation(2, "the ends of logs are not compared", "weather", "redis_cut")
def _no_comparison() -> Patches:
    async def compare(self: Any, *, urgent: bool) -> None:
        return None

    with mock.patch.object(Repair, "compare", compare):
        yield


@mutation(2, "frames are written whatever their seq")
def _blind() -> Patches:
    original = Hub.on_message

    def on_message(self: Any, channel: bytes, text: bytes) -> None:
        feed = self._feeds.get(channel)
        if feed is not None and text.startswith(b"[") and feed.epoch:
            seq = int(text.rpartition(b":")[2][:-2])
            for member in feed.members:
                if member.due:
                    member.due = seq
        original(self, channel, text)

    with mock.patch.object(Hub, "on_message", on_message):
        yield


@mutation(2, "what Redis forgot is not enqueued again", "redis_flush", "redis_down", "kill_worker")
def _no_sweep() -> Patches:
    async def ask_unpersisted(*_: Any, **__: Any) -> int:
        return 0

    with (
        mock.patch.object(outbox, "LOST_AFTER_S", 1e8),
        mock.patch.object(store.persistence, "ask_unpersisted", ask_unpersisted),
    ):
        yield


@mutation(3, "seq from a sequence, which does not roll back", "kill_watcher", "database_cut")
def _sequence() -> Patches:
    original_lock, original_append = log.lock, log.append
    given: dict[str, int] = {}

    async def lock(tx: Any, users: Any) -> Any:
        counters = await original_lock(tx, users)
        return {
            user: log.Counter(user, c.epoch, max(c.seq, given.get(c.epoch, 0)), c.opened)
            for user, c in counters.items()
        }

    async def append(tx: Any, counters: Any, drafts: Any, *, at: Any) -> Any:
        frames = await original_append(tx, counters, drafts, at=at)
        for frame in frames:
            epoch, _, seq = frame.text.decode().rpartition(',"')[2][:-2].partition(":")
            given[epoch] = max(given.get(epoch, 0), int(seq))
        return frames

    with mock.patch.object(log, "lock", lock), mock.patch.object(log, "append", append):
        yield


@mutation(3, "counters are read without their lock")
def _unlocked() -> Patches:
    unlocked = log.SQL["lock_counters"].replace("FOR NO KEY UPDATE", "")
    with mock.patch.object(log, "SQL", {**log.SQL, "lock_counters": unlocked}):
        yield


@mutation(4, "the enqueue deletes the request, not the job")
def _forgetful() -> Patches:
    original = outbox.dispatch

    async def dispatch(conn: Any, redis: Any, queue: Any) -> int:
        sent = await original(conn, redis, queue)
        await conn.execute("DELETE FROM outbox WHERE enqueued_at IS NOT NULL")
        return sent

    with mock.patch.object(outbox, "dispatch", dispatch):
        yield


@mutation(4, "a ledger row that is there already is an error", "reorg", "come_back")
def _no_conflict() -> Patches:
    insert, _, rest = ledger.SQL["record"].partition("ON CONFLICT")
    plain = insert + rest[rest.index("RETURNING") :]
    with mock.patch.object(ledger, "SQL", {**ledger.SQL, "record": plain}):
        yield


@mutation(5, "a reorg tells nobody")
def _silent_reorg() -> Patches:
    async def append(*_: Any, **__: Any) -> list[Any]:
        return []

    quiet = SimpleNamespace(lock=log.lock, of_cause=log.of_cause, append=append)
    with mock.patch.object(reverts, "log", quiet):
        yield


@mutation(5, "a reorg leaves the rows as they are")
def _no_preimages() -> Patches:
    async def restore(*_: Any) -> None:
        return None

    with mock.patch.object(ledger, "restore_preimages", restore):
        yield


@mutation(5, "a block that comes back has its old event ids", "reorg", "come_back")
def _no_generation() -> Patches:
    original = cursors.apply_block

    async def apply_block(*args: Any, **options: Any) -> int:
        await original(*args, **options)
        return 0

    with mock.patch.object(cursors, "apply_block", apply_block):
        yield


@mutation(5, "what was taken back leaves no tombstone")
def _no_tombstone() -> Patches:
    from dataclasses import replace

    original = persistence.event
    with mock.patch.object(persistence, "event", lambda row: replace(original(row), is_deleted=0)):
        yield


@mutation(6, "a failing call for logs means no logs")
def _error_is_empty() -> Patches:
    async def logs_of(rpc: Any, hashes: Any, filters: Any) -> Any:
        try:
            return await chain_logs_of(rpc, hashes, filters)
        except RpcError:
            return [() for _ in hashes]

    with mock.patch.object(fetch, "logs_of", logs_of):
        yield


@mutation(6, "empty logs are believed against the bloom", "lag", "mood")
def _no_second_look() -> Patches:
    async def believe(*_: Any, **__: Any) -> None:
        return None

    with mock.patch.object(fetch, "_look_again", believe):
        yield


@mutation(7, "the log is read without its user")
def _anybody() -> Patches:
    careless = log.SQL["after"].replace("user_address = $1", "user_address >= left($1, 2)")
    with mock.patch.object(log, "SQL", {**log.SQL, "after": careless}):
        yield


@mutation(7, "one cache entry for all tokens")
def _one_token() -> Patches:
    with mock.patch.object(auth, "fingerprint", return_value=b"token"):
        yield


@mutation(8, "a slow reader is not cut")
def _unbounded() -> Patches:
    with mock.patch.object(EngineServer, "overflowed", return_value=None):
        yield


@mutation(8, "everybody waits for the slowest reader")
def _convoy() -> Patches:
    original = Hub.on_batch

    def on_batch(self: Any) -> None:
        waiting = (each.socket.transport for each in self.members())
        if not any(transport is not None and transport.get_write_buffer_size() > 1024 for transport in waiting):
            original(self)

    with mock.patch.object(Hub, "on_batch", on_batch):
        yield


def caught_by(mutation: Mutation, engines: Engines) -> tuple[int | None, str]:
    """The first seed that fails with the mutation, and its first failure."""
    with mutation.broken():
        for seed in SEEDS:
            report = run(seed, engines, stress=mutation.stress)
            if report.failures:
                return seed, report.failures[0]
    return None, ""
