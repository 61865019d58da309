"""Migrations run once, in order, whole, and never change after they ran."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from store import migrate
from store.clickhouse import Analytics, database_of
from store.migrate import MigrationError
from store.postgres import Pool

ONE = {"0001_one": "CREATE TABLE one (a int)"}
TWO = {**ONE, "0002_two": "CREATE TABLE two (a int); INSERT INTO two VALUES (1);"}


def folder(tmp_path: Path, files: dict[str, str]) -> Path:
    for path in tmp_path.glob("*.sql"):
        path.unlink()
    for name, sql in files.items():
        (tmp_path / f"{name}.sql").write_text(sql)
    return tmp_path


@pytest.fixture
async def empty_url(pool: Pool, database_url: str) -> str:
    await pool.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return database_url


async def apply(url: str, files: Path) -> list[str]:
    async with migrate.locked(url) as conn:
        return await migrate.postgres(conn, files)


async def tables(pool: Pool) -> set[str]:
    return {row["tablename"] for row in await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


async def test_applies_in_order_once_and_then_only_what_is_new(empty_url: str, pool: Pool, tmp_path: Path) -> None:
    assert await apply(empty_url, folder(tmp_path, ONE)) == ["0001_one"]
    assert await apply(empty_url, folder(tmp_path, TWO)) == ["0002_two"]
    assert await apply(empty_url, tmp_path) == []
    assert {"one", "two"} <= await tables(pool)


async def test_own_schema_migrates_an_empty_database_and_is_idempotent(empty_url: str) -> None:
    names = await apply(empty_url, migrate.POSTGRES)
    assert names[0] == "0001_spine"
    assert await apply(empty_url, migrate.POSTGRES) == []


async def test_file_that_fails_leaves_nothing_behind(empty_url: str, pool: Pool, tmp_path: Path) -> None:
    broken = {**ONE, "0002_broken": "CREATE TABLE half (a int); SELECT nonsense;"}
    with pytest.raises(MigrationError, match="0002_broken failed and nothing of it was applied"):
        await apply(empty_url, folder(tmp_path, broken))
    assert "half" not in await tables(pool)
    assert await apply(empty_url, folder(tmp_path, TWO)) == ["0002_two"]


async def test_file_is_applied_together_with_its_record_or_not_at_all(
    empty_url: str, pool: Pool, tmp_path: Path
) -> None:
    unrecordable = {"0001_unrecordable": "CREATE TABLE half (a int); DROP TABLE schema_migrations"}
    with pytest.raises(MigrationError):
        await apply(empty_url, folder(tmp_path, unrecordable))
    assert await tables(pool) == {"schema_migrations"}


async def test_many_at_once_apply_each_file_once(empty_url: str, pool: Pool, tmp_path: Path) -> None:
    files = folder(tmp_path, TWO)
    applied = await asyncio.gather(*(apply(empty_url, files) for _ in range(5)))
    assert sorted(applied) == [[], [], [], [], ["0001_one", "0002_two"]]
    assert await pool.fetchval("SELECT count(*) FROM two") == 1


async def test_waiting_for_another_migration_ends_with_a_sentence(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_WAIT_S", 0.05)
    async with migrate.locked(empty_url):
        with pytest.raises(MigrationError, match="another migration has run"):
            async with migrate.locked(empty_url):
                pass


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"0001_one": "CREATE TABLE one (b int)"}, "0001_one was applied and has changed since"),
        ({"0002_two": ""}, "0001_one was applied by a newer version"),
        ({**ONE, "0000_before": ""}, "0000_before sorts before 0001_one"),
        ({**ONE, "0001_other": ""}, "share a number"),
        ({**ONE, "2_short": ""}, "2_short.sql is no migration"),
    ],
)
async def test_history_that_does_not_match_is_refused(
    empty_url: str, pool: Pool, tmp_path: Path, files: dict[str, str], sentence: str
) -> None:
    await apply(empty_url, folder(tmp_path, ONE))
    before = await tables(pool)
    with pytest.raises(MigrationError, match=sentence):
        await apply(empty_url, folder(tmp_path, files))
    assert await tables(pool) == before


async def test_lock_is_free_again_when_its_process_dies(empty_url: str, pool: Pool) -> None:
    async with migrate.locked(empty_url) as conn:
        await pool.execute("SELECT pg_terminate_backend($1)", conn.get_server_pid())
    assert await apply(empty_url, migrate.POSTGRES)


async def test_clickhouse_applies_once_and_finishes_a_file_that_was_cut(analytics: Analytics, tmp_path: Path) -> None:
    make = "CREATE TABLE IF NOT EXISTS {} (a Int8) ENGINE = MergeTree ORDER BY a"
    cut = {"0001_two_tables": f"-- why; so\n{make.format('one')};\n\n{make.format('two')};\n"}
    own = Analytics(analytics.url + "_other")
    try:
        assert len(migrate.statements(cut["0001_two_tables"])) == 2
        await migrate.clickhouse(own, folder(tmp_path, {}))
        await own.command(make.format("one"))  # as after a crash between the two statements
        assert await migrate.clickhouse(own, folder(tmp_path, cut)) == ["0001_two_tables"]
        assert await migrate.clickhouse(own, tmp_path) == []
        with pytest.raises(MigrationError, match="changed since"):
            await migrate.clickhouse(own, folder(tmp_path, {"0001_two_tables": make.format("one")}))
    finally:
        await analytics.command("DROP DATABASE {database:Identifier}", database=database_of(own.url))
        await own.close()


async def test_own_clickhouse_schema_is_idempotent(analytics: Analytics) -> None:
    assert await migrate.clickhouse(analytics) == []
    for file in migrate.read(migrate.CLICKHOUSE):
        for statement in migrate.statements(file.sql):
            await analytics.command(statement)
