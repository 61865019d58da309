"""Which language model is asked, when, and what it may cost; whoever asks has an answer of its own to fall back on.

Nothing in here raises because a provider fails: items without an answer stay None; the reason is logged and counted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import TypeVar

import orjson
import structlog

from config import metrics
from handlers.rules.prompts import ITEMS_MAX, Answer, MalformedAnswer, answer_key, build, check
from jobs.outbound.models import Question
from jobs.outbound.provider import Breaker, Completion, Provider, ProviderFailed
from store import ai
from store.ai import Answers, Bill
from store.postgres import Pool

log = structlog.get_logger(__name__)

ATTEMPTS = 2
"""Calls of one provider for one question."""
PAUSE_S = 0.3
"""Pause before the second one (s), up to twice that."""
PAUSE_MAX_S = 2.0
"""Longest pause that a provider may ask for (s); one that wants more is not asked again."""

Sleep = Callable[[float], Awaitable[None]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """A provider and what is known of its health."""

    provider: Provider
    breaker: Breaker


class Router:
    """Asks the first provider that answers, within each user's cap; keeps what they said."""

    def __init__(
        self,
        providers: Sequence[Provider],
        pool: Pool,
        answers: Answers,
        *,
        cap_usd: Decimal,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`now` names the UTC day that a call is charged to, `clock` (s) times breakers."""
        self._lines = [Line(provider, Breaker(clock)) for provider in providers]
        self._pool = pool
        self._answers = answers
        self._cap = cap_usd
        self._now = now
        self._sleep = sleep

    async def ask(self, question: Question) -> list[Answer | None]:
        """An answer for each item, None where nobody gave one that counts."""
        found: list[Answer | None] = [None] * len(question.items)
        for line in self._lines:
            missing = [index for index, answer in enumerate(found) if answer is None]
            for start in range(0, len(missing), ITEMS_MAX):
                places = missing[start : start + ITEMS_MAX]
                part = Question(question.user, [question.items[at] for at in places], question.candidates)
                for at, answer in zip(places, await self._asked(line, part), strict=True):
                    found[at] = answer
        return found

    async def _asked(self, line: Line, question: Question) -> list[Answer | None]:
        """What one provider says, or said before."""
        model = f"{line.provider.name}/{line.provider.model}"
        names = [answer_key(question.user, model, item, question.candidates) for item in question.items]
        found = [_read(kept) for kept in map((await self._answers.read(names)).get, names)]
        new = [index for index, answer in enumerate(found) if answer is None]
        if not new:
            return found
        rest = Question(question.user, [question.items[at] for at in new], question.candidates)
        kept: dict[str, bytes] = {}
        for at, answer in zip(new, await self._answered(line, rest), strict=True):
            if answer is not None:
                found[at] = answer
                kept[names[at]] = _written(answer)
        await self._answers.keep(kept)
        return found

    async def _answered(self, line: Line, question: Question) -> list[Answer | None]:
        nothing: list[Answer | None] = [None] * len(question.items)
        prompt = build(question.items, question.candidates)
        for attempt in range(1, ATTEMPTS + 1):
            if not line.breaker.lets_through():
                return self._told(line, "left_alone", nothing)
            bill = Bill(question.user, self._now().date(), line.provider.name, line.provider.model)
            most = line.provider.prices.cost(prompt.input_tokens, prompt.output_tokens)
            if not await ai.reserve(self._pool, bill, most, cap=self._cap):
                return self._told(line, "over_cap", nothing)
            try:
                completion = await line.provider.complete(prompt)
            except ProviderFailed as error:
                await self._failed(line, bill, error, reserved=most)
                if attempt == ATTEMPTS or not await self._worth_another(error):
                    return nothing
                continue
            line.breaker.succeeded()
            await self._settle(line, bill, completion, reserved=most)
            return self._checked(line, question, completion.text)
        return nothing

    async def _failed(self, line: Line, bill: Bill, error: ProviderFailed, *, reserved: Decimal) -> None:
        line.breaker.failed(for_good=error.failure == "refused")
        if not error.served:
            await ai.release(self._pool, bill, reserved=reserved)
        self._told(line, error.failure, None)
        log.warning("model_failed", provider=line.provider.name, failure=error.failure, reason=str(error))

    async def _worth_another(self, error: ProviderFailed) -> bool:
        """Wait for the second attempt, if there is to be one."""
        pause = error.retry_after_s or PAUSE_S * (1 + random.random())  # noqa: S311 - jitter, not a secret
        if not error.is_passing or pause > PAUSE_MAX_S:
            return False
        await self._sleep(pause)
        return True

    async def _settle(self, line: Line, bill: Bill, completion: Completion, *, reserved: Decimal) -> None:
        tokens = (completion.input_tokens, completion.output_tokens)
        cost = line.provider.prices.cost(*tokens)
        await ai.settle(self._pool, bill, reserved=reserved, cost=cost, input_tokens=tokens[0], output_tokens=tokens[1])

    def _checked(self, line: Line, question: Question, text: str) -> list[Answer | None]:
        try:
            answers = check(text, question.items, question.candidates)
        except MalformedAnswer:
            log.warning("model_failed", provider=line.provider.name, failure="malformed", reason="not of the schema")
            return self._told(line, "malformed", [None] * len(question.items))
        return self._told(line, "answered", answers)

    def _told(self, line: Line, outcome: str, result: T) -> T:
        metrics.AI_CALLS.labels(line.provider.name, outcome).inc()
        return result

    async def close(self) -> None:
        """Close every provider."""
        for line in self._lines:
            await line.provider.close()


def _read(kept: bytes | None) -> Answer | None:
    """A kept answer; None when there is none, or it is not what we write."""
    if kept is None:
        return None
    try:
        category_id, confidence, reasoning = orjson.loads(kept)
        return Answer(str(category_id), Decimal(confidence), str(reasoning))
    except (ValueError, TypeError, InvalidOperation):
        return None


def _written(answer: Answer) -> bytes:
    return orjson.dumps([answer.category_id, str(answer.confidence), answer.reasoning])
