from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from store import log, sessions
from store.audit import Caller
from store.postgres import Pool, Tx, in_transaction

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
DAY = timedelta(days=1)
USER, OTHER = "0x" + "11" * 20, "0x" + "22" * 20


async def begin(pool: Pool, user: str = USER, *, at: datetime = NOW, key: bytes = b"1") -> str:
    async def body(tx: Tx) -> str:
        await log.lock(tx, [user])
        await sessions.register(tx, user, chain_ids=[1, 2], at=at)
        session_id = await sessions.start(tx, user, Caller("2001:db8::1", "Phone"), at=at)
        await sessions.add_access(tx, session_id, b"a" + key, expires_at=at + timedelta(minutes=15))
        await sessions.add_refresh(tx, session_id, b"r" + key, expires_at=at + 30 * DAY)
        return session_id

    return await in_transaction(pool, body)


async def test_a_nonce_is_taken_once(pool: Pool) -> None:
    await sessions.put_nonce(pool, "n", expires_at=NOW)
    async with pool.acquire() as conn:
        assert await sessions.take_nonce(conn, "n") == NOW
        assert await sessions.take_nonce(conn, "n") is None
        assert await sessions.take_nonce(conn, "other") is None


async def test_registering_again_keeps_what_the_user_and_the_chain_have_set(pool: Pool) -> None:
    await begin(pool)
    await pool.execute("UPDATE users SET display_name = 'Ada'")
    await pool.execute("UPDATE wallet_scopes SET opened_block = 7 WHERE chain_id = 1")
    await begin(pool, at=NOW + DAY, key=b"2")
    user = await sessions.user(pool, USER)
    assert user is not None
    assert user.display_name == "Ada"
    assert await pool.fetchval("SELECT opened_block FROM wallet_scopes WHERE chain_id = 1") == 7
    assert await pool.fetchval("SELECT opened_at FROM user_counters") == NOW


async def test_a_user_the_chain_knew_before_gets_a_log_at_sign_in(pool: Pool) -> None:
    async with pool.acquire() as conn, conn.transaction():
        await log.lock(conn, [USER])
    assert await log.heads(pool, [USER]) == {}
    await begin(pool)
    assert set(await log.heads(pool, [USER])) == {USER}


async def test_revocation_is_seen_from_a_little_before_it_on(pool: Pool) -> None:
    mine, theirs = await begin(pool), await begin(pool, OTHER, key=b"2")
    async with pool.acquire() as conn:
        assert await sessions.revoke(conn, OTHER, mine, reason="logout") == []
        assert await sessions.revoke(conn, USER, mine, reason="logout") == [mine]
        assert await sessions.revoke(conn, USER, mine, reason="logout") == []
        at = await conn.fetchval("SELECT revoked_at FROM sessions WHERE id = $1::uuid", mine)
    assert await sessions.revoked_since(pool, at + timedelta(seconds=9)) == [mine]
    assert await sessions.revoked_since(pool, at + timedelta(seconds=11)) == []
    assert await sessions.identity(pool, b"a1") is None
    identity = await sessions.identity(pool, b"a2")
    assert identity is not None
    assert identity.session_id == theirs


async def test_pruning_takes_what_is_over_and_keeps_what_is_needed(pool: Pool) -> None:
    await sessions.put_nonce(pool, "old", expires_at=NOW - DAY)
    await sessions.put_nonce(pool, "fresh", expires_at=NOW + DAY)
    await begin(pool, at=NOW - 40 * DAY, key=b"old")
    kept = await begin(pool, at=NOW - 10 * DAY, key=b"mid")
    await pool.execute("UPDATE refresh_tokens SET used_at = $1 WHERE token_hash = $2", NOW, b"rmid")
    while await sessions.prune(pool, before=NOW, batch=1):
        pass
    assert await pool.fetchval("SELECT array_agg(nonce) FROM auth_nonces") == ["fresh"]
    assert await pool.fetchval("SELECT array_agg(id::text) FROM sessions") == [kept]
    assert await pool.fetchval("SELECT array_agg(token_hash) FROM refresh_tokens") == [b"rmid"]
    assert await pool.fetchval("SELECT count(*) FROM access_tokens") == 0


async def test_a_session_needs_a_registered_user(pool: Pool) -> None:
    async with pool.acquire() as conn:
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await sessions.start(conn, USER, Caller(), at=NOW)
