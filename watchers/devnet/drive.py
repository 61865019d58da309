"""Users who spend for ever: small spends from two buckets each, now and then a deposit, a move or a batch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from aiohttp import ClientError

from watchers.devnet.node import NodeError
from watchers.devnet.people import USDC, Devnet, Payment, Person, Reverted

BUCKETS = ("Food & Dining", "Transportation")
FIRST = 1
"""Number of the first driven person; 0 deploys the contracts."""
_FIRST_SHOP, _SHOPS = 900, 4
_LIMIT = 500 * USDC
_FUNDS = 400 * USDC
_LOW = 150 * USDC  # what a bucket is filled up at: above what is spent from it within a block
_DEPOSIT = 25 * USDC

_log = structlog.get_logger("watchers.devnet.drive")


@dataclass(frozen=True, slots=True)
class Crowd:
    """The driven persons and where they spend; `rng` decides what they do next, so that a seed repeats a run."""

    devnet: Devnet
    people: tuple[Person, ...]
    shops: tuple[str, ...]
    rng: random.Random


async def gather_crowd(devnet: Devnet, users: int, *, first: int = FIRST, seed: int = 1) -> Crowd:
    """So many persons, each with two funded buckets; who has them from an earlier run keeps them."""
    people = await devnet.users(users, first=first)
    shops = await devnet.users(_SHOPS, first=_FIRST_SHOP)
    for one in people:
        await open_buckets(devnet, one)
    return Crowd(devnet, tuple(people), tuple(shop.address for shop in shops), random.Random(seed))


async def open_buckets(devnet: Devnet, who: Person) -> None:
    """Give a person the buckets that driven persons spend from, with money in them, unless they are there."""
    for bucket in BUCKETS:
        if not (await devnet.bucket_of(who, bucket)).exists:
            await devnet.open_bucket(who, bucket, limit=_LIMIT, amount=_FUNDS)


async def drive(crowd: Crowd, *, rate_per_s: float, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Let the crowd act at a rate (actions per second) until cancelled; one that fails is logged."""
    while True:
        try:
            await act_once(crowd)
        except (Reverted, NodeError, ClientError, OSError) as error:
            _log.warning("action_failed", error=str(error))
        await pause(crowd.rng.expovariate(rate_per_s))


async def act_once(crowd: Crowd) -> str:
    """One action of one person, one that the contract will allow; return its transaction."""
    devnet, rng = crowd.devnet, crowd.rng
    who, bucket = rng.choice(crowd.people), rng.choice(BUCKETS)
    devnet.forget_nonces()  # others may act for the same persons, and blocks may have been replaced
    state, balance = await devnet.bucket_of(who, bucket), await devnet.balance_of(who, bucket)
    if state.spent + _LOW > state.limit:
        return await devnet.update_bucket(who, bucket, state.limit + _LIMIT)
    if balance < _LOW:
        enough = await devnet.unallocated_of(who) >= _FUNDS
        return await (devnet.fund(who, bucket, _FUNDS) if enough else devnet.deposit(who, 2 * _FUNDS))
    match rng.randrange(12):
        case 0:
            return await devnet.deposit(who, _DEPOSIT)
        case 1:
            target = next(name for name in BUCKETS if name != bucket)
            return await devnet.move(who, bucket, target, rng.randrange(1, 5) * USDC)
        case 2:
            return await devnet.batch_spend(who, [_payment(crowd, bucket) for _ in range(3)])
        case _:
            payment = _payment(crowd, bucket)
            return await devnet.spend(who, bucket, payment.amount, payment.recipient)


def _payment(crowd: Crowd, bucket: str) -> Payment:
    cents = crowd.rng.randrange(150, 1200)  # 1.50 to 12.00 dollars, like lunches and bus rides
    return Payment(bucket, cents * USDC // 100, crowd.rng.choice(crowd.shops))
