from __future__ import annotations

import uuid

from config import keys
from config.embedded.valkey import Valkey
from store import acks
from store.redis import open_redis


async def test_the_highest_seq_of_any_session_counts(redis_url: str) -> None:
    client = open_redis(redis_url)
    user = f"0x{uuid.uuid4().hex}"
    assert await acks.shown(client, user) == 0
    for session_id, seq in (("phone", 5), ("web", 9), ("phone", 7), ("web", 3)):
        assert await acks.acked(client, user, session_id, seq)
    assert await acks.shown(client, user) == 9
    assert await client.zscore(keys.acks(user), "phone") == 7
    assert 0 < await client.ttl(keys.acks(user)) <= acks.KEPT_S
    await client.aclose()


async def test_a_redis_that_is_away_loses_the_ack_and_says_so(private_valkey: Valkey) -> None:
    client = open_redis(private_valkey.url)
    private_valkey.stop()
    assert not await acks.acked(client, "0x1", "phone", 1)
    assert await acks.shown(client, "0x1") is None
    await client.aclose()
