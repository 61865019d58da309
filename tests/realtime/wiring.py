"""Deps of a web process in three lines: a real database, a publisher that remembers, a clock that a test sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from config.chains import Chain, Token
from config.settings import Settings
from handlers.deps import Deps
from store.postgres import Pool

USDC = "0x" + "c0" * 20
CHAIN = Chain(
    name="devnet",
    id=31337,
    rpc=("http://127.0.0.1:1",),
    confirmations=2,
    finality_depth=10,
    tokens=(Token(USDC, "USDC", 6, "usd"),),
)
OTHER_CHAIN = Chain(name="other", id=31338, rpc=("http://127.0.0.1:1",), confirmations=1, finality_depth=4)
CHAINS = {chain.id: chain for chain in (CHAIN, OTHER_CHAIN)}


@dataclass
class FakePublisher:
    woken: list[str] = field(default_factory=list)

    async def publish(self, frames: Sequence[tuple[str, bytes]], blocks: Sequence[tuple[int, bytes]] = ()) -> bool:
        return True

    async def wake(self, channel: str, text: bytes = b"") -> bool:
        self.woken.append(channel)
        return True


@dataclass
class FakeClock:
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def wire(pool: Pool, settings: Settings, *, clock: FakeClock | None = None) -> Deps:
    return Deps(settings, CHAINS, pool, FakePublisher(), clock or FakeClock())


def busy(make_settings: Callable[..., Settings], **overrides: Any) -> Settings:
    """Settings whose limits no test reaches by chance: the tests of a process share one Redis and one address."""
    plenty = dict.fromkeys(("sign_in_limit_per_minute", "read_limit_per_minute", "command_limit_per_minute"), 1_000_000)
    return make_settings(**{**plenty, **overrides})
