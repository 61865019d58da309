"""Anthropic, or whoever speaks its protocol at `EXPENDI_ANTHROPIC_BASE_URL`. The SDK takes 2 s to import: lazily."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass, field
from typing import Any

from handlers.rules.prompts import Prompt
from jobs.outbound.failures import failure_of
from jobs.outbound.provider import Completion, Prices, ProviderFailed


@dataclass(slots=True)
class AnthropicModel:
    """One model of Anthropic's messages, with a JSON schema for its output."""

    api_key: str = field(repr=False)
    model: str
    prices: Prices
    timeout_s: float
    base_url: str | None = None
    name: str = "anthropic"
    _client: Any = None

    async def complete(self, prompt: Prompt) -> Completion:
        """See Provider.complete."""
        sdk = await asyncio.to_thread(importlib.import_module, "anthropic")
        if self._client is None:
            # Retries are the router's: the SDK would wait as long as a server tells it to.
            self._client = sdk.AsyncAnthropic(
                api_key=self.api_key, base_url=self.base_url, timeout=self.timeout_s, max_retries=0
            )
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await self._client.messages.create(
                    model=self.model,
                    system=prompt.system,
                    messages=[{"role": "user", "content": prompt.text}],
                    max_tokens=prompt.output_tokens,
                    output_config={"format": {"type": "json_schema", "schema": dict(prompt.schema)}},
                )
            return _completion(answer)
        except (sdk.AnthropicError, TimeoutError, ValueError) as error:
            raise failure_of(sdk, error) from error

    async def close(self) -> None:
        """See Provider.close."""
        if self._client is not None:
            await self._client.close()


def _completion(answer: Any) -> Completion:
    try:
        text = "".join(block.text for block in answer.content if block.type == "text")
        usage = (int(answer.usage.input_tokens), int(answer.usage.output_tokens))
    except (AttributeError, TypeError) as error:
        raise ProviderFailed("malformed", "The answer is no message.", served=True) from error
    return Completion(text, *usage)
