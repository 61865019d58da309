"""`chain_status`, best effort: how far the chains are, for users who wait for a transaction to become final."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import orjson
import structlog

from config import keys
from handlers.rules.periods import iso
from realtime import frames
from realtime.fanout import Hub
from realtime.ports import Heights, Ports
from realtime.repair import Repair, passes
from store.records import Address

log = structlog.get_logger(__name__)

TICK_S = 1.0
"""Least time between two statuses to one user, and between two reads of the heights (s)."""
IDLE_S = 15.0
"""Longest time without a read of heights and of who waits (s): finds chains that were added, blocks that were lost."""


class ChainStatus:
    """Tells each user after `session`, and then while that user has a transaction that is not final."""

    def __init__(self, hub: Hub, repair: Repair, ports: Ports) -> None:
        self._hub, self._repair, self._chains = hub, repair, ports.chains
        self._heights: Mapping[int, Heights] = {}
        self._frames: dict[int, bytes] = {}
        self._waiting: dict[Address, dict[int, int]] = {}
        """Highest block with a transaction of this user, by chain, until it is final."""
        self._newcomers: set[Address] = set()
        self._woken = asyncio.Event()
        self._has_blocks = True
        self._asked_all_at = 0.0

    @property
    def waiting(self) -> int:
        """Users with a transaction that is not final."""
        return len(self._waiting)

    def greet(self, user: Address) -> bytes:
        """Frames that tell a new socket, right after its session, where the chains are."""
        self._newcomers.add(user)
        self._woken.set()
        return b"".join(self._frames.values())

    def on_block(self, text: bytes) -> None:
        """Take a block from a chain's channel: heights moved, and its users have something to wait for."""
        try:
            block = orjson.loads(text)
            chain_id, number, users = int(block["chainId"]), int(block["number"]), list(block["users"])
        except (ValueError, KeyError, TypeError):
            log.warning("a message on a chain's channel is no block")
            return
        self._wait_for(chain_id, number, users)
        self._has_blocks = True
        self._woken.set()

    def _wait_for(self, chain_id: int, number: int, users: Iterable[Address]) -> None:
        for user in users:
            if self._hub.feed_of(user) is not None:
                of_user = self._waiting.setdefault(user, {})
                of_user[chain_id] = max(number, of_user.get(chain_id, 0))

    async def watch(self) -> None:
        """Read heights when blocks come, at most once a second, for ever."""
        while True:
            try:
                await self.tick()
            except Exception as error:  # noqa: BLE001 - the one place of this loop, which must go on
                log.warning("heights could not be read; trying again", why=repr(error), passing=passes(error))
            await asyncio.sleep(TICK_S)
            try:
                async with asyncio.timeout(0 if self._repair.away else IDLE_S):
                    await self._woken.wait()
            except TimeoutError:
                self._has_blocks = True
                self._ask_for_all()

    def _ask_for_all(self) -> None:
        """Whose transactions came in blocks that were not heard? Asked when no block was, and not each second."""
        now = asyncio.get_running_loop().time()
        if now - self._asked_all_at >= IDLE_S:
            self._asked_all_at = now
            self._newcomers.update(feed.user for feed in self._hub.feeds_with_members())

    async def tick(self) -> None:
        """One round: who came, how far the chains are, who is told."""
        self._woken.clear()
        newcomers, self._newcomers = self._newcomers, set()
        if newcomers:
            try:
                unfinal = await self._chains.unfinal(list(newcomers))
            except Exception:
                self._newcomers |= newcomers
                raise
            for user, chains in unfinal.items():
                for chain_id, number in chains.items():
                    self._wait_for(chain_id, number, [user])
        if self._has_blocks:
            self._has_blocks = False
            await self._read()

    async def _read(self) -> None:
        before, self._heights = self._heights, await self._chains.heights()
        for chain_id in self._heights.keys() - before.keys():
            self._hub.task(self._hub.channels.subscribe(keys.blocks_channel(chain_id)))
        at = iso(datetime.now(UTC))
        moved = {chain for chain, heights in self._heights.items() if before.get(chain) != heights}
        self._frames.update({chain: _frame(chain, self._heights[chain], at=at) for chain in moved})
        if before:
            self._tell(moved)
        else:
            self._tell_all()

    def _tell_all(self) -> None:
        """For those whose session came before the first heights did."""
        for member in list(self._hub.members()):
            member.socket.send_frame(b"".join(self._frames.values()))

    def _tell(self, moved: set[int]) -> None:
        for user in list(self._waiting):
            feed, of_user = self._hub.feed_of(user), self._waiting[user]
            concerned = moved & of_user.keys()
            for member in list(feed.members) if feed is not None and concerned else ():
                if member.due:  # one that is being brought up has better things to read
                    member.socket.send_frame(b"".join(self._frames[chain] for chain in sorted(concerned)))
            for chain_id in concerned:
                if self._heights[chain_id].finalized >= of_user[chain_id]:
                    del of_user[chain_id]
            if feed is None or not of_user:
                del self._waiting[user]


def _frame(chain_id: int, heights: Heights, *, at: str) -> bytes:
    status = {
        "chainId": chain_id,
        "head": heights.head,
        "confirmed": heights.confirmed,
        "finalized": heights.finalized,
        "lagBlocks": heights.lag_blocks,
        "at": at,
    }
    return frames.event_frame(frames.best_effort("chain_status", status))
