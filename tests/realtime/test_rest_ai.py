from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from store import ai
from store.ai import Bill
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime.served import serving
from tests.realtime.wiring import FakeClock, busy, wire


async def test_usage_is_listed_by_day_and_model_beside_the_cap(pool: Pool, make_settings: MakeSettings) -> None:
    clock = FakeClock()
    today = clock.now.date()
    deps = wire(pool, busy(make_settings, ai_daily_cap_usd="0.5"), clock=clock)
    async with serving(deps) as anyone:
        me, other = await anyone.signed_in(), await anyone.signed_in()
        assert (await me.get("/v1/me/ai-usage")).json == {"data": [], "cap": "0.50", "today": "0.00"}
        for days, model in ((0, "b"), (0, "a"), (1, "a"), (90, "a"), (91, "a")):
            bill = Bill(me.address, today - timedelta(days=days), "openai", model)
            assert await ai.reserve(pool, bill, Decimal("0.2"), cap=Decimal("0.5"))
            cost = Decimal("0.00012345")
            await ai.settle(pool, bill, reserved=Decimal("0.2"), cost=cost, input_tokens=900, output_tokens=80)
        got = (await me.get("/v1/me/ai-usage")).json
        assert [(row["day"], row["model"]) for row in got["data"]] == [
            (today.isoformat(), "a"),
            (today.isoformat(), "b"),
            ((today - timedelta(days=1)).isoformat(), "a"),
            ((today - timedelta(days=90)).isoformat(), "a"),
        ]
        assert got["data"][0] == {
            "day": today.isoformat(),
            "provider": "openai",
            "model": "a",
            "calls": 1,
            "inputTokens": 900,
            "outputTokens": 80,
            "costUsd": "0.00012345",
        }
        assert (got["cap"], got["today"]) == ("0.50", "0.0002469")
        assert (await other.get("/v1/me/ai-usage")).json["data"] == []
        assert (await anyone.get("/v1/me/ai-usage")).status == 401
