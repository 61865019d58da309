"""The models of a worker, from its settings: opened and closed with the process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from config.settings import Settings
from handlers.deps import Deps
from jobs.outbound.anthropic_model import AnthropicModel
from jobs.outbound.embeddings import LocalModel
from jobs.outbound.llm import Router
from jobs.outbound.models import Models
from jobs.outbound.openai_model import OpenAiModel
from jobs.outbound.provider import Prices, Provider
from store.ai import Answers
from store.redis import Client


@asynccontextmanager
async def opened_models(deps: Deps, redis: Client) -> AsyncIterator[Models]:
    """The local model, and language models where keys are set; nothing is loaded or connected before it is asked.

    `redis` keeps answers; closing it is the caller's.
    """
    local, providers, settings = LocalModel(), providers_of(deps.settings), deps.settings
    answers, cap = Answers(redis), settings.ai_daily_cap_usd
    router = Router(providers, deps.pool, answers, cap_usd=cap, now=deps.now) if providers else None
    try:
        yield Models(local, router)
    finally:
        local.close()
        if router is not None:
            await router.close()


def providers_of(settings: Settings) -> list[Provider]:
    """The providers whose keys are set, in the order in which they are asked."""
    found: list[Provider] = []
    if key := settings.openai_api_key.get_secret_value():
        prices = Prices(settings.openai_input_usd, settings.openai_output_usd)
        url = settings.openai_base_url or None
        found.append(OpenAiModel(key, settings.openai_model, prices, settings.ai_timeout_s, url))
    if key := settings.anthropic_api_key.get_secret_value():
        prices = Prices(settings.anthropic_input_usd, settings.anthropic_output_usd)
        url = settings.anthropic_base_url or None
        found.append(AnthropicModel(key, settings.anthropic_model, prices, settings.ai_timeout_s, url))
    return found
