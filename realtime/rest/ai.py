"""What the user's spends cost at language models, which are asked only where the user consents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, timedelta
from typing import Annotated

from pydantic import Field

from handlers.resources import Money, Resource
from handlers.rules.money import dollars
from realtime.rest.api import endpoint
from realtime.rest.call import Call
from store import ai

DAYS = 90
"""How far back usage is listed."""


class AiUsageOfDay(Resource):
    """What one model cost on a day."""

    day: Annotated[date, Field(description="UTC day.")]
    provider: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: Annotated[Money, Field(description="US dollars; a call under way counts at the most it can cost.")]


class AiUsage(Resource):
    """Usage of the last 90 days, newest first; beyond `cap` dollars a UTC day no model is asked."""

    data: list[AiUsageOfDay]
    cap: Money
    today: Annotated[Money, Field(description="What today's calls cost until now.")]


@endpoint("GET", "/v1/me/ai-usage", tag="me", answers=AiUsage, tagged=True)
async def ai_usage(call: Call) -> Mapping[str, object]:
    """Read what language models cost the user, by day and model.

    Local models cost nothing and are not listed.
    """
    today = call.deps.now().astimezone(UTC).date()
    rows = await ai.usage(call.deps.pool, call.me.user, since=today - timedelta(days=DAYS))
    return {
        "data": [
            {
                "day": row.day.isoformat(),
                "provider": row.provider,
                "model": row.model,
                "calls": row.calls,
                "inputTokens": row.input_tokens,
                "outputTokens": row.output_tokens,
                "costUsd": dollars(row.cost_usd),
            }
            for row in rows
        ],
        "cap": dollars(call.deps.settings.ai_daily_cap_usd),
        "today": dollars(await ai.spent(call.deps.pool, call.me.user, today)),
    }


ROUTES = (ai_usage,)
