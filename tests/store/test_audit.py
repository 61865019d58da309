from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from store import audit
from store.audit import USER_AGENT_MAX, AuditEntry, Caller
from store.postgres import Pool

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
USER, OTHER = "0x" + "11" * 20, "0x" + "22" * 20


async def test_entries_come_back_newest_first_and_page_by_id(pool: Pool) -> None:
    for minute in range(5):
        at = NOW + timedelta(minutes=minute)
        await audit.record(pool, AuditEntry(USER, "refresh", Caller("192.0.2.1", "Phone"), at, {"minute": minute}))
    await audit.record(pool, AuditEntry(OTHER, "sign_in", Caller(), NOW))
    await audit.record(pool, AuditEntry(None, "sign_in_refused", Caller(), NOW))
    first = await audit.audit_of(pool, USER, before=None, limit=2)
    rest = await audit.audit_of(pool, USER, before=first[-1].id, limit=10)
    assert [entry.metadata["minute"] for entry in first + rest] == [4, 3, 2, 1, 0]
    assert (first[0].ip_address, first[0].user_agent, first[0].action) == ("192.0.2.1", "Phone", "refresh")


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_logs SET action = 'x'", "DELETE FROM audit_logs", "TRUNCATE audit_logs"]
)
async def test_what_was_written_can_not_be_changed(pool: Pool, statement: str) -> None:
    await audit.record(pool, AuditEntry(USER, "sign_in", Caller(), NOW))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute(statement)


async def test_a_hostile_user_agent_is_kept_as_far_as_it_can_be_shown(pool: Pool) -> None:
    caller = Caller("not an address", "a\x00b\ud800c\x1b[31m\u202e" + "x" * 10_000)
    await audit.record(pool, AuditEntry(USER, "sign_in", caller, NOW))
    [entry] = await audit.audit_of(pool, USER, before=None, limit=1)
    assert entry.ip_address is None
    assert entry.user_agent.startswith("ab?c[31mxx")
    assert len(entry.user_agent) == USER_AGENT_MAX
