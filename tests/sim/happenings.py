"""What happens in a run, step by step, drawn from its seed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from tests.sim.bus import Weather
from tests.sim.clock import Doom
from tests.sim.node import Mood, SimNode
from tests.watchers.node import FakeBlock

if TYPE_CHECKING:
    from tests.sim.world import World

DEEPEST = 8
MOST_SLOW_READERS = 1
"""Each costs a run a minute of its time."""
FINALITY = 16
"""Blocks deeper than which a reorg stops the chain."""
DOOMS: tuple[Doom, ...] = (
    "now", "commit unsent", "commit unanswered", "committed, not published", "half published"
)  # fmt: skip


class Step(Protocol):
    """One thing that happens."""

    __name__: str

    async def __call__(self) -> None: ...


class Happenings:
    """The steps of one run. Each run has a temper of its own: some are stormy, some kill, some only fork."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.draw = world.draw("happenings")
        self.forks = 0
        self.top = 0
        self.slow_readers = 0
        self.replaced: list[FakeBlock] = []
        always: dict[Step, int] = {self.mine: 10, self.burst: 2, self.join: 2, self.final: 1}
        sometimes: dict[Step, int] = {
            self.reorg: 4,
            self.come_back: 5,
            self.weather: 3,
            self.mood: 3,
            self.outage: 1,
            self.lag: 2,
            self.old_heads: 2,
            self.cut_heads: 1,
            self.cut_client: 4,
            self.stall_client: 1,
            self.kill_watcher: 2,
            self.kill_server: 1,
            self.kill_worker: 2,
            self.restart: 2,
            self.redis_down: 1,
            self.redis_cut: 1,
            self.redis_flush: 1,
            self.database_cut: 2,
            self.clock_jump: 1,
            self.slow_reader: 2,
            self.ack: 1,
            self.tell: 3,
        }
        chosen = {step: weight for step, weight in sometimes.items() if self.draw.random() < 0.6}
        if world.stress:
            chosen = {step: 5 * weight for step, weight in sometimes.items() if step.__name__ in world.stress}
        self.table = {**always, **chosen}

    async def all(self, steps: int) -> None:
        """Let `steps` things happen, a moment apart."""
        for node in self.world.nodes:
            self._mood(node, fails=(0, 0, 0.1))
        for who in (0, 1):
            await self.world.sign_in_at_last(who)
            self.world.join(who)
        for _ in range(steps):
            await asyncio.sleep(self.draw.choice((0.0, 0.01, 0.1, 0.5, 1.0, 3.0)))
            (step,) = self.draw.choices(list(self.table), list(self.table.values()))
            await step()

    def count(self, fault: str) -> None:
        self.world.faults[fault] += 1
        self.world.trace(fault)

    # -- the chain -----------------------------------------------------------------------------------------------------

    async def mine(self) -> None:
        node = self.world.node
        block = self.world.story.block(node.head, fork=str(self.forks))
        node.blocks.append(block)
        self.world.trace(f"block {block.number} {block.hash[:10]} with {len(block.txs)} transactions")
        if self.draw.random() < 0.2:
            self.count("head not announced")
        elif self.draw.random() < 0.15:
            self.count("head announced twice")
            await node.announce(times=2)
        else:
            await node.announce()

    async def burst(self) -> None:
        for _ in range(self.draw.randint(2, 8)):
            await self.mine()

    async def final(self) -> None:
        self.world.finalize(self.world.node.head.number - 12)

    async def reorg(self) -> None:
        node, story = self.world.node, self.world.story
        depth = min(self.draw.randint(1, DEEPEST), node.head.number - self._floor)
        if depth <= 0:
            return
        self.forks += 1
        self.count("reorg")
        self.replaced = self._take_back(depth)
        self.world.trace(f"    {depth} blocks from {self.replaced[0].number}")
        for old in self.replaced[: self.draw.randint(1, depth)]:
            if self.draw.random() < 0.6:
                node.blocks.append(story.again(old, node.head, fork=str(self.forks)))
            else:
                node.blocks.append(story.block(node.head, fork=str(self.forks)))
        if self.draw.random() < 0.8:
            await node.announce()

    async def come_back(self) -> None:
        """The replaced blocks are the chain again, and a new one on top makes them the longer branch."""
        node, back = self.world.node, self.replaced
        if not back or back[0].parent not in node.hashes[-DEEPEST:]:
            return
        at = node.hashes.index(back[0].parent)
        if at < self._floor:
            return
        self.count("reorg back to old blocks")
        self.forks += 1
        self.replaced = self._take_back(len(node.blocks) - 1 - at)
        node.blocks.extend(back)
        node.blocks.append(self.world.story.block(node.head, fork=str(self.forks)))
        await node.announce()

    @property
    def _floor(self) -> int:
        """The newest block that may not be replaced: a ledger may stand at the highest block that ever was."""
        node = self.world.node
        self.top = max(self.top, node.head.number)
        return max(node.finalized or 0, self.top - FINALITY + 2)

    def _take_back(self, depth: int) -> list[FakeBlock]:
        node = self.world.node
        if depth == 0:
            return []
        taken = node.blocks[-depth:]
        node.orphans.update({block.hash: block for block in taken})
        del node.blocks[-depth:]
        return taken

    async def old_heads(self) -> None:
        node = self.world.node
        told = [*node.blocks[-4:], *list(node.orphans.values())[-3:]]
        self.count("old or replaced heads announced")
        await node.announce(*self.draw.choices(told, k=2))

    async def cut_heads(self) -> None:
        self.count("head websocket cut")
        await self.world.node.cut()

    async def mood(self) -> None:
        self._mood(self.draw.choice(self.world.nodes))

    async def outage(self) -> None:
        """Every node is bad at once."""
        for node in self.world.nodes:
            self._mood(node, fails=(0.3, 0.7))

    def _mood(self, node: SimNode, fails: Sequence[float] = (0.0, 0.05, 0.2, 0.5)) -> None:
        node.mood = Mood(
            fail=self.draw.choice(fails),
            stale=self.draw.choice((0, 0, 0.3)),
            lie=self.draw.choice((0, 0.2, 0.6)),
            latency_s=self.draw.choice((0.01, 0.05, 0.4)),
        )

    async def lag(self) -> None:
        node = self.world.nodes[1]
        node.lag = self.draw.choice((0, 0, 1, 3, 6))
        node.lag = min(node.lag, len(node.blocks) - 1)
        if node.lag:
            self.count("second node lags")

    # -- between the processes -----------------------------------------------------------------------------------------

    async def weather(self) -> None:
        draw = self.draw
        self.world.bus.weather = Weather(
            lose=draw.choice((0, 0.1, 0.5)), double=draw.choice((0, 0.2)), delay=draw.choice((0, 0.3))
        )

    async def redis_down(self) -> None:
        if self.world.bus._server is None:
            return
        flushed = self.draw.random() < 0.5
        self.count("Redis restarted" + (", empty" if flushed else ""))
        self.world.bus.down()
        if flushed:
            await self.world.bus.command(b"FLUSHALL")
        self.world.task(self._up_again())

    async def _up_again(self) -> None:
        await asyncio.sleep(self.draw.uniform(0, 8))
        if self.world.bus._server is None:
            await self.world.bus.up()

    async def redis_cut(self) -> None:
        self.count("Redis connections cut")
        self.world.bus.cut()

    async def redis_flush(self) -> None:
        self.count("Redis flushed")
        await self.world.bus.command(b"FLUSHALL")

    async def database_cut(self) -> None:
        slot = self.draw.choice(list(self.world.slots.values()))
        if slot.process is not None and slot.process.cut(self.world.engines.postgres.port):
            self.count(f"PostgreSQL connections of a {slot.name.partition('-')[0]} cut")

    # -- processes -----------------------------------------------------------------------------------------------------

    async def kill_watcher(self) -> None:
        doom = self.draw.choice(DOOMS)
        for name in ("watcher-1", "watcher-2"):
            process = self.world.slots[name].process
            if process is None:
                continue
            if doom == "now":
                self.count("watcher killed")
                process.die()
                return
            self.count(f"watcher to die: {doom}")
            process.doom = doom

    async def kill_server(self) -> None:
        await self._kill(self.draw.choice(("server-1", "server-2")))

    async def kill_worker(self) -> None:
        if self.draw.random() < 0.5:
            await self._kill("worker")
        elif (process := self.world.slots["worker"].process) is not None:
            process.doom = self.draw.choice(("commit unsent", "commit unanswered"))
            self.count(f"worker to die: {process.doom}")

    async def _kill(self, name: str) -> None:
        process = self.world.slots[name].process
        if process is not None:
            self.count(f"{name.partition('-')[0]} killed")
            process.die()

    async def restart(self) -> None:
        """A process is stopped as an operator does."""
        slot = self.draw.choice(list(self.world.slots.values()))
        if slot.process is not None:
            self.count(f"{slot.name.partition('-')[0]} stopped")
            slot.process.stop.set()

    async def clock_jump(self) -> None:
        slot = self.draw.choice(list(self.world.slots.values()))
        if slot.process is not None:
            jump_s = self.draw.choice((-3600, -60, -1, 1, 60, 3600))
            slot.process.ahead += timedelta(seconds=jump_s)
            self.count("clock jumped")
            self.world.trace(f"    {slot.name} by {jump_s} s")

    async def tell(self) -> None:
        """Somebody else appends to everybody's log while blocks are written."""
        self.count("appended beside the watcher")
        users = list(self.world.tokens)
        left = self.draw.randint(5, 20)

        def at_begin() -> None:
            nonlocal left
            left -= 1
            if left > 0:
                self.world.tell(self.draw.choice(users), times=1)

        for name in ("watcher-1", "watcher-2"):
            if (process := self.world.slots[name].process) is not None:
                process.on_begin = at_begin
        await self.burst()

    # -- clients -------------------------------------------------------------------------------------------------------

    async def join(self) -> None:
        world = self.world
        who = self.draw.randrange(len(world.people))
        if len(world.clients) < 8 and (world.users[who] in world.tokens or await world.sign_in(who)):
            world.join(who)

    async def cut_client(self) -> None:
        self.draw.choice(self.world.clients).cut()

    async def stall_client(self) -> None:
        client = self.draw.choice(self.world.clients)
        client.stall(stop=not client.stalled)

    async def slow_reader(self) -> None:
        """A client stops reading while its user gets a lot: it must be cut, and nobody else may wait."""
        world = self.world
        narrow = [client for client in world.clients if client.narrow and client.live]
        if not narrow or self.slow_readers == MOST_SLOW_READERS:
            return
        self.slow_readers += 1
        client = self.draw.choice(narrow)
        self.world.trace(f"{client.name} is slow")
        client.stall(stop=True)
        for _ in range(3):
            block = world.story.flood(world.node.head, client.user, fork=str(self.forks))
            world.node.blocks.append(block)
            await world.node.announce()
            await asyncio.sleep(3)
        await asyncio.sleep(40)
        client.stall(stop=False)

    async def ack(self) -> None:
        for client in self.world.clients:
            await client.ack()
