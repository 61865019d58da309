"""What devices have shown: the highest seq each session acked, in Redis for a day; losing it costs one more push."""

from __future__ import annotations

import structlog

from config import keys
from store.records import Address
from store.redis import AWAY, Client, bounded

logger = structlog.get_logger(__name__)

KEPT_S = 86_400
"""Life of a user's acks after the last one (s): pushes older than a day are not sent any more."""


async def acked(client: Client, user: Address, session_id: str, seq: int) -> bool:
    """Note that a session has shown every event up to `seq`; a lower one changes nothing. False: Redis is away."""
    try:
        await bounded(client.zadd(keys.acks(user), {session_id: seq}, gt=True))
        await bounded(client.expire(keys.acks(user), KEPT_S))
    except AWAY as error:
        logger.info("ack_not_kept", error=repr(error))
        return False
    return True


async def shown(client: Client, user: Address) -> int | None:
    """Highest seq that any device of the user has shown; None when Redis does not say."""
    try:
        found = await bounded(client.zrange(keys.acks(user), 0, 0, desc=True, withscores=True))
    except AWAY:
        return None
    return int(found[0][1]) if found else 0
