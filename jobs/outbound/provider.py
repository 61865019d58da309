"""What the product needs of a language model, whoever serves it, and the ways in which it may fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

from handlers.rules.prompts import Prompt

Failure = Literal["timeout", "connection", "busy", "server", "refused", "malformed"]

MILLION = Decimal(1_000_000)
PLACES = Decimal("0.00000001")


class ProviderFailed(Exception):
    """A call that gave no answer. `served`: it may have been worked on, so that it may have to be paid."""

    def __init__(self, failure: Failure, reason: str, *, served: bool, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.failure = failure
        self.served = served
        self.retry_after_s = retry_after_s

    @property
    def is_passing(self) -> bool:
        """Whether the same call may be answered a moment later."""
        return self.failure in {"busy", "server", "connection"}


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer as it came, and the tokens it is charged by."""

    text: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens."""

    input_usd: Decimal
    output_usd: Decimal

    def cost(self, input_tokens: int, output_tokens: int) -> Decimal:
        """Dollars for so many tokens."""
        return ((input_tokens * self.input_usd + output_tokens * self.output_usd) / MILLION).quantize(PLACES)


class Provider(Protocol):
    """A server of one language model."""

    @property
    def name(self) -> str:
        """As the ledger of costs calls it."""
        ...

    @property
    def model(self) -> str:
        """The model that is asked."""
        ...

    @property
    def prices(self) -> Prices:
        """What it charges."""
        ...

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask once, within the provider's timeout; raises ProviderFailed."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


BREAK_AFTER = 3
"""Failures in a row after which a provider is left alone."""
BREAK_S = 60.0
"""How long it is left alone (s), before one call tries again."""


class Breaker:
    """Keeps jobs from waiting for a provider that does not answer anyway."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    def lets_through(self) -> bool:
        """Whether to call; once BREAK_S is over one caller gets through, and the rest after it succeeded."""
        if self._failures < BREAK_AFTER:
            return True
        if self._clock() < self._open_until:
            return False
        self._open_until = self._clock() + BREAK_S
        return True

    def succeeded(self) -> None:
        """The provider answered."""
        self._failures = 0

    def failed(self, *, for_good: bool = False) -> None:
        """The provider did not answer; `for_good`: nor will it, as with a key that it does not take."""
        self._failures = max(self._failures + 1, BREAK_AFTER if for_good else 0)
        self._open_until = self._clock() + BREAK_S
