"""`make prove-cuts`: clients behind a TCP proxy, cut again and again while events flow on two web processes.

Once with the official JavaScript client and its own recovery, once with python-socketio's client, which has none and
connects with `since`. Nothing may be lost, doubled or out of order; whoever can't be resumed is told by a snapshot.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import socketio

from store.records import Address
from tests.clients.many import BEST_EFFORT, Many, Told, many_clients
from tests.flows.proxy import Proxy
from tests.load.deliver import commit, machine
from tests.load.product import Product, Urls, engines, product
from tests.waiting import until

RECOVERED = 0.99
"""Least part of the cuts after which the client goes on where it was."""
BACK_S = 20.0
"""Time that a client may take to be back, and at the end to have everything (s)."""
MENTIONS = 12
"""Most events that one transaction appends."""

Event = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """How much is done, and which choices are made."""

    clients: int = 20
    cuts: int = 200
    events: int = 20_000
    seed: int = 1


class Client(Protocol):
    """A client as the proof sees it."""

    def told(self) -> Sequence[Event]:
        """Every event so far, in order."""

    def connects(self) -> Sequence[bool]:
        """Of every connect so far, whether the missed events follow; else a snapshot does."""

    @property
    def is_connected(self) -> bool:
        """Whether it believes to be."""


@dataclass(frozen=True)
class Outcome:
    """What the clients were told, against what was committed."""

    kind: str
    plan: Plan
    seconds: float
    reconnects: int
    recovered: int
    snapshots: int
    lost: int
    doubled: int
    disordered: int
    moves: int
    """Reconnects that went to the other web process."""

    @property
    def holds(self) -> bool:
        broken = self.lost or self.doubled or self.disordered
        # Cut once more before its snapshot came, a client gets one for both connects; a hole would count as lost.
        told = self.snapshots <= self.reconnects - self.recovered
        enough = self.reconnects >= self.plan.cuts and self.recovered >= RECOVERED * self.reconnects
        return not broken and told and enough

    def line(self) -> str:
        return (
            f"{self.kind:9} {self.plan.cuts} cuts, {self.plan.clients} clients, {self.plan.events:,} events in "
            f"{self.seconds:.1f} s: lost {self.lost}, doubled {self.doubled}, out of order {self.disordered}, "
            f"recovered {self.recovered}/{self.reconnects}, by snapshot {self.snapshots}, "
            f"{self.moves} to the other server -> {'holds' if self.holds else 'BROKEN'}"
        )


class Official:
    """The JavaScript client with its own recovery."""

    def __init__(self, client: Told) -> None:
        self._client = client

    def told(self) -> Sequence[Event]:
        return self._client.events()

    def connects(self) -> Sequence[bool]:
        return [line["recovered"] for line in self._client.all("connect")]

    @property
    def is_connected(self) -> bool:
        return self._client.is_connected


class Python:
    """python-socketio's client; where it stands is what it sends as `since`."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._events: list[Event] = []
        self._recovered: list[bool] = []
        self._position: dict[str, Any] = {}
        self.client = socketio.AsyncClient(
            reconnection_delay=0.05, reconnection_delay_max=0.2, randomization_factor=0, logger=False
        )
        self.client.on("*", self._take)

    def auth(self) -> dict[str, Any]:
        return {"token": self._token, "recovery": False, **self._position}

    def _take(self, name: str, payload: dict[str, Any]) -> None:
        self._events.append((name, payload))
        if name == "session":
            self._recovered.append(payload["recovered"])
            self._position["epoch"] = payload["epoch"]
        if name == "snapshot" or name not in BEST_EFFORT:
            self._position["since"] = payload["seq"]

    def told(self) -> Sequence[Event]:
        return self._events

    def connects(self) -> Sequence[bool]:
        return self._recovered

    @property
    def is_connected(self) -> bool:
        return bool(self.client.connected and self.client.namespaces)


@asynccontextmanager
async def official(users: Sequence[str], urls: Sequence[str]) -> AsyncIterator[list[Client]]:
    async with many_clients() as many:
        yield [_connected(many, token, url) for token, url in zip(users, urls, strict=True)]


def _connected(many: Many, token: str, url: str) -> Client:
    return Official(many.connect(url, auth={"token": token}, transports=["websocket"]))


@asynccontextmanager
async def python(users: Sequence[str], urls: Sequence[str]) -> AsyncIterator[list[Client]]:
    made = [Python(token) for token in users]
    try:
        for each, url in zip(made, urls, strict=True):
            await each.client.connect(url, auth=each.auth, transports=["websocket"])
        yield list(made)
    finally:
        for each in made:
            await each.client.shutdown()


KINDS: dict[str, Callable[..., Any]] = {"official": official, "python": python}


async def prove(kind: str, plan: Plan, urls: Urls, folder: Path) -> Outcome:
    """Run the plan with clients of one kind on two web processes."""
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(product(folder, urls, servers=2))
        users = await made.sign_in(plan.clients)
        proxies = [await stack.enter_async_context(Proxy(made.urls[n % 2])) for n in range(plan.clients)]
        clients = await stack.enter_async_context(KINDS[kind](list(users.values()), [each.url for each in proxies]))
        await until(lambda: all(_is_up(client) for client in clients), BACK_S, what="every client's first snapshot")
        began = time.monotonic()
        run = _Run(made, plan, list(users), proxies, clients)
        await run.all()
        return run.outcome(kind, time.monotonic() - began)


def _is_up(client: Client) -> bool:
    return any(name == "snapshot" for name, _ in client.told())


class _Run:
    """Events in transactions of random size for random users; between them, cuts at an even pace."""

    def __init__(
        self, made: Product, plan: Plan, users: list[Address], proxies: list[Proxy], clients: list[Client]
    ) -> None:
        self._made, self._plan, self._users = made, plan, users
        self._proxies, self._clients = proxies, clients
        self._chance = random.Random(plan.seed)
        self._expected = [1] * plan.clients
        """Connects that each client will have made."""
        self._moves = 0

    async def all(self) -> None:
        written = cuts = 0
        while written < self._plan.events:
            size = min(self._chance.randint(1, MENTIONS), self._plan.events - written)
            await self._made.tell(self._chance.choices(self._users, k=size))
            written += size
            while cuts < self._plan.cuts and cuts < self._plan.cuts * written / self._plan.events:
                await self._cut()
                cuts += 1
        await until(self._complete, BACK_S, what="every client has everything")

    async def _cut(self) -> None:
        ready = await until(self._ready, BACK_S, what="a client that is connected")
        number = self._chance.choice(ready)
        proxy = self._proxies[number]
        target = self._chance.choice(self._made.urls)
        self._moves += target != proxy.target
        proxy.target = target
        self._expected[number] += 1
        proxy.cut()

    def _ready(self) -> list[int]:
        """Clients that are back from their last cut: one more is a cut of its own."""
        return [n for n in range(self._plan.clients) if self._is_back(n)]

    def _is_back(self, number: int) -> bool:
        client = self._clients[number]
        return client.is_connected and len(client.connects()) >= self._expected[number]

    def _complete(self) -> bool:
        return all(
            self._is_back(n) and position(self._clients[n].told()) >= self._made.told[user]
            for n, user in enumerate(self._users)
        )

    def outcome(self, kind: str, seconds: float) -> Outcome:
        faults = [faults_of(client.told()) for client in self._clients]
        again = [recovered for client in self._clients for recovered in client.connects()[1:]]
        snapshots = sum(sum(name == "snapshot" for name, _ in client.told()) - 1 for client in self._clients)
        lost, doubled, disordered = (sum(each) for each in zip(*faults, strict=True))
        return Outcome(
            kind, self._plan, seconds, len(again), sum(again), snapshots, lost, doubled, disordered, self._moves
        )


def position(told: Sequence[Event]) -> int:
    """Seq at which a client stands."""
    return next(
        (payload["seq"] for name, payload in reversed(told) if name == "snapshot" or name not in BEST_EFFORT), 0
    )


def faults_of(told: Sequence[Event]) -> tuple[int, int, int]:
    """(lost, doubled, out of order) of one client; a snapshot moves it on, never back."""
    lost = doubled = disordered = at = 0
    seen: set[int] = set()
    ids: set[str] = set()
    for name, payload in told:
        if name in BEST_EFFORT and name != "snapshot":
            continue
        seq = payload["seq"]
        if name == "snapshot":
            disordered += seq < at
            at = max(at, seq)
            continue
        if seq in seen or payload["id"] in ids:
            doubled += 1
        elif seq <= at:
            disordered += 1
        else:
            lost += seq - at - 1
        seen.add(seq)
        ids.add(payload["id"])
        at = max(at, seq)
    return lost, doubled, disordered


async def _both(plan: Plan, urls: Urls, kinds: Sequence[str]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(await prove(kind, plan, urls, Path(folder)))
        print(outcomes[-1].line(), flush=True)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=Plan.clients)
    parser.add_argument("--cuts", type=int, default=Plan.cuts)
    parser.add_argument("--events", type=int, default=Plan.events)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--only", choices=tuple(KINDS))
    args = parser.parse_args()
    plan = Plan(args.clients, args.cuts, args.events, args.seed)
    print(f"machine: {machine()}\ncommit: {commit()}\nseed: {plan.seed}")
    with engines() as urls:
        outcomes = asyncio.run(_both(plan, urls, [args.only] if args.only else list(KINDS)))
    return 0 if all(outcome.holds for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
