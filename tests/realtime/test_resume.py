from __future__ import annotations

from tests.realtime.raw import raw
from tests.realtime.stage import new_user, staged


async def test_first_connect_gets_session_then_snapshot_then_live_events(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, raw(stage.url) as client:
        for _ in range(3):
            stage.log.append(user)
        session = await client.connect(token=f"{user}/s1")
        epoch = stage.log.epoch(user)
        assert session["serverTime"].endswith("Z")
        del session["serverTime"]
        assert session == {"userId": user, "epoch": epoch, "seq": 3, "recovered": False, "replayed": 0}
        assert await client.event() == ("snapshot", [{"seq": 3, "balances": []}, f"{epoch}:3"])
        await stage.tell(user, amount="1")
        event, (payload, offset) = await client.event()
        assert (event, payload["seq"], payload["amount"], offset) == ("new_transaction", 4, "1", f"{epoch}:4")
