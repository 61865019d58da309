"""OpenAI, or whoever speaks its protocol at `EXPENDI_OPENAI_BASE_URL`. The SDK takes a second to import: lazily."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass, field
from typing import Any

from handlers.rules.prompts import Prompt
from jobs.outbound.failures import failure_of
from jobs.outbound.provider import Completion, Prices, ProviderFailed


@dataclass(slots=True)
class OpenAiModel:
    """One model of OpenAI's chat completions, with a strict JSON schema."""

    api_key: str = field(repr=False)
    model: str
    prices: Prices
    timeout_s: float
    base_url: str | None = None
    name: str = "openai"
    _client: Any = None

    async def complete(self, prompt: Prompt) -> Completion:
        """See Provider.complete."""
        sdk = await asyncio.to_thread(importlib.import_module, "openai")
        if self._client is None:
            # Retries are the router's: the SDK would wait as long as a server tells it to.
            self._client = sdk.AsyncOpenAI(
                api_key=self.api_key, base_url=self.base_url, timeout=self.timeout_s, max_retries=0
            )
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await self._client.chat.completions.create(
                    model=self.model,
                    messages=[{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.text}],
                    max_completion_tokens=prompt.output_tokens,
                    response_format={
                        "type": "json_schema",
                        "json_schema": {"name": "categories", "strict": True, "schema": dict(prompt.schema)},
                    },
                )
            return _completion(answer)
        except (sdk.OpenAIError, TimeoutError, ValueError) as error:
            raise failure_of(sdk, error) from error

    async def close(self) -> None:
        """See Provider.close."""
        if self._client is not None:
            await self._client.close()


def _completion(answer: Any) -> Completion:
    try:
        text = answer.choices[0].message.content
        usage = (int(answer.usage.prompt_tokens), int(answer.usage.completion_tokens))
    except (AttributeError, IndexError, TypeError) as error:
        raise ProviderFailed("malformed", "The answer is no chat completion.", served=True) from error
    if not isinstance(text, str):
        raise ProviderFailed("malformed", "The model refused.", served=True)
    return Completion(text, *usage)
