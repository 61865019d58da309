"""The demo: one user's live feed through the whole product, and the proof that nothing was lost or told twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import ClientError, ClientSession
from rich.console import Console

from config.chains import Chain
from watchers.devnet import script
from watchers.devnet.drive import Crowd, drive, gather_crowd, open_buckets
from watchers.devnet.failure import DemoFailed
from watchers.devnet.feed import Feed
from watchers.devnet.heads import watch_heads
from watchers.devnet.listener import Listener
from watchers.devnet.node import NodeError
from watchers.devnet.people import Devnet, Person, Reverted, person
from watchers.devnet.phone import Phone
from watchers.devnet.proof import Verdict, examine
from watchers.devnet.rest import Rest, Tokens
from watchers.devnet.table import deployment

CHECK_S = 90.0
"""Most that the scenes may take (s): they take about 20, the rest is for slow machines."""
CROWD = 3
RATE_PER_S = 2.0
"""Actions of the crowd, per second, beside which the viewer's events must stand out."""
_FIRST_VIEWER, _VIEWERS = 100, 200  # numbers of persons that may become the viewer
_FRIEND, _SHOP = 90, 91
PACE_S = {True: 0.15, False: 0.6}  # between two actions: brisk when checked, to be watched otherwise


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo plays: urls of the web process and of the fake push provider, domain that the sign-in asks for,
    and the devnet's chain row.
    """

    web: str
    phones: str
    domain: str
    chain: Chain


async def run(stage: Stage, *, check: bool) -> int:
    """Play the demo; return the exit code. With `check` it ends by itself, else it goes on until stopped."""
    console = Console()
    try:
        await _play(stage, console, check=check)
    except (DemoFailed, Reverted, NodeError, LookupError, ClientError, OSError, TimeoutError) as error:
        reason = f"not done after {CHECK_S:g} s" if isinstance(error, TimeoutError) and not str(error) else str(error)
        print(f"demo: FAILED: {reason}", flush=True)
        return 1
    return 0


async def _play(stage: Stage, console: Console, *, check: bool) -> None:
    rpc, at = stage.chain.rpc[0], deployment(stage.chain)
    websocket = stage.chain.ws or rpc.replace("http", "ws", 1)  # anvil serves both on one port
    async with (
        ClientSession() as http,
        Devnet(rpc, deployment=at) as devnet,
        Devnet(rpc, deployment=at) as others,  # counts nonces of its own, so that neither waits for the other
        watch_heads(websocket) as heads,
    ):
        rest, feed = Rest(http, stage.web), Feed(console, heads)
        await rest.wait_ready()
        viewer = await fresh_viewer(devnet)
        friend, shop = await devnet.user(_FRIEND), await devnet.user(_SHOP)
        crowd = await gather_crowd(others, CROWD)
        tokens = await rest.sign_in(viewer, domain=stage.domain, chain_id=at.chain_id)
        async with Listener(stage.web, tokens.access, tell=feed.tell) as client, _driven(crowd):
            phone = Phone(http, stage.phones, f"phone-of-{viewer.address}")
            play = script.Play(devnet, viewer, friend, shop, rest, client, phone, heads, feed, pace_s=PACE_S[check])
            async with asyncio.timeout(CHECK_S):
                verdict = await perform(play)
            if not check:
                report(verdict)
                feed.wallets([viewer, *crowd.people])
                await _go_on(play, crowd, tokens)
    report(verdict)  # last, when all is closed and nobody else prints


async def perform(play: script.Play) -> Verdict:
    """All scenes, then the verdict on what was received."""
    await script.arrive(play)
    await script.live(play)
    await script.reach_a_limit(play)
    await script.lose_connection(play)
    await script.reorganise(play)
    return examine(await script.evidence(play))


def report(verdict: Verdict) -> None:
    """Print figures and outcome; raise DemoFailed when an invariant does not hold."""
    print(f"\n{verdict.line}", flush=True)
    if verdict.failures:
        raise DemoFailed("; ".join(verdict.failures))
    print("demo: ok", flush=True)


async def fresh_viewer(devnet: Devnet) -> Person:
    """A person who never acted on this chain, so that all that their client is told was caused by this run."""
    people = [person(_FIRST_VIEWER + i) for i in range(_VIEWERS)]
    counts = await devnet.rpc_batch([("eth_getTransactionCount", (one.address, "latest")) for one in people])
    for one, count in zip(people, counts, strict=True):
        if int(count, 16) == 0:
            return await devnet.user(one.index)
    raise DemoFailed(f"the demo ran {_VIEWERS} times on this chain: start a new one")


@contextlib.asynccontextmanager
async def _driven(crowd: Crowd) -> AsyncIterator[None]:
    """Let the crowd act while the block runs."""
    task = asyncio.create_task(drive(crowd, rate_per_s=RATE_PER_S))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _go_on(play: script.Play, crowd: Crowd, tokens: Tokens) -> None:
    """Keep the viewer spending and signed in until stopped."""
    play.client.stop_keeping()
    play.feed.heading("users go on spending; Ctrl-C ends it")
    await open_buckets(play.devnet, play.viewer)
    alone = Crowd(play.devnet, (play.viewer,), crowd.shops, crowd.rng)
    async with _driven(alone):
        while True:
            await asyncio.sleep(tokens.expires_in_s / 2)
            tokens = await play.rest.refresh(tokens)
            await play.client.command(f"token {tokens.access}")
