"""PostgreSQL, Valkey and anvil: they answer, keep what they were told over restarts and crashes, and say why not."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT
from typing import Any

import asyncpg
import pytest
import redis.asyncio

from config.embedded import postgres as launcher
from config.embedded.chain import Anvil
from config.embedded.engine import EngineError
from config.embedded.postgres import Postgres
from config.embedded.valkey import Valkey
from tests.waiting import until


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres"), options={"fsync": "off"}) as engine:
        yield engine


async def fetch(url: str, sql: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_postgres_has_our_database_extensions_and_options(postgres: Postgres) -> None:
    assert await fetch(postgres.url, "SELECT current_database() || '/' || current_user") == "expendi/expendi"
    assert await fetch(postgres.url, "SHOW fsync") == "off"
    assert await fetch(postgres.url, "SHOW timezone") == "UTC"
    assert await fetch(postgres.url, "SELECT datlocale FROM pg_database WHERE datname = 'expendi'") == "C.UTF-8"
    await fetch(postgres.url, "CREATE EXTENSION vector")
    await fetch(postgres.url, "CREATE EXTENSION pg_trgm")


async def test_postgres_keeps_its_rows_and_port_over_restart_and_crash(postgres: Postgres) -> None:
    await fetch(postgres.url, "CREATE TABLE kept AS SELECT 1 AS one")
    url = postgres.url
    assert postgres.restart().url == url
    assert await fetch(url, "SELECT count(*) FROM kept") == 1
    postgres.kill()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncpg.connect(url)
    assert postgres.start().url == url
    assert await fetch(url, "SELECT count(*) FROM kept") == 1


async def test_postgres_stops_under_open_connections(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.url)
    postgres.restart()
    await until(connection.is_closed)
    assert await fetch(postgres.url, "SELECT 1") == 1


def test_a_cluster_that_was_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18")
    with Postgres(tmp_path, options={"fsync": "off"}) as engine:
        assert engine.pid is not None
    assert not (tmp_path / "postgres.new").exists()


def test_an_engine_that_cannot_start_shows_what_it_said(tmp_path: Path) -> None:
    engine = Valkey(tmp_path)
    engine.dir.mkdir(parents=True)
    (engine.dir / "appendonlydir").write_text("in the way")
    with pytest.raises(EngineError) as refused:
        engine.start()
    said = str(refused.value)
    assert said.startswith(f"valkey does not start; {engine.log} ends with:\n")
    assert "Can't open or create append-only dir" in said
    assert engine.pid is None


def test_a_port_taken_between_look_and_bind_is_left_alone(tmp_path: Path) -> None:
    engine = Valkey(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", engine.port))
        other.listen()
        taken = engine.port
        with engine:
            assert engine.port != taken


def test_an_engine_of_another_that_answers_on_our_port_is_not_ours(tmp_path: Path) -> None:
    with Valkey(tmp_path / "theirs") as theirs, pytest.raises(EngineError, match="already in use"):
        Valkey(tmp_path / "ours", port=theirs.port).start()


async def ask(url: str, *words: str) -> Any:
    client = redis.asyncio.from_url(url)
    try:
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]  # redis ships it untyped
    finally:
        await client.aclose()


async def test_valkey_keeps_its_keys_and_port_over_stop_and_crash(tmp_path: Path) -> None:
    with Valkey(tmp_path) as engine:
        url = engine.url
        await ask(url, "SET", "kept", "1")
        engine.stop()
        assert engine.pid is None
        assert engine.start().url == url
        assert await ask(url, "GET", "kept") == b"1"
        engine.kill()
        with pytest.raises(redis.exceptions.ConnectionError):
            await ask(url, "PING")
        assert engine.start().url == url
        assert await ask(url, "GET", "kept") == b"1"


def call(url: str, method: str, *params: Any) -> Any:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as response:
        return json.load(response)["result"]


async def test_anvil_mines_by_time_or_by_transaction(tmp_path: Path) -> None:
    with Anvil(tmp_path / "timed", block_time=0.05, chain_id=777) as engine:
        assert int(call(engine.rpc, "eth_chainId"), 16) == 777
        await until(lambda: int(call(engine.rpc, "eth_blockNumber"), 16) >= 2)
        assert engine.ws == engine.rpc.replace("http", "ws")
    with Anvil(tmp_path / "quiet", block_time=None) as engine:
        assert int(call(engine.rpc, "eth_chainId"), 16) == 31337
        [sender, receiver, *_] = call(engine.rpc, "eth_accounts")
        call(engine.rpc, "eth_sendTransaction", {"from": sender, "to": receiver, "value": "0x1"})
        await until(lambda: int(call(engine.rpc, "eth_blockNumber"), 16) == 1)


def test_root_runs_postgres_as_nobody_where_namespaces_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher._prefix_of_root.cache_clear()
    tried: list[str] = []

    class Refused:
        returncode = 1

    class Allowed:
        returncode = 0

    def run(command: list[str], **_: Any) -> Any:
        tried.append(command[0])
        return Refused if command[0] == "unshare" else Allowed

    monkeypatch.setattr("config.embedded.postgres.subprocess.run", run)
    monkeypatch.setattr("config.embedded.postgres.shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("config.embedded.postgres.os.geteuid", lambda: 0)
    prefix = launcher.without_root(SIGINT)
    assert tried == ["unshare", "setpriv"]
    assert prefix[0] == "setpriv"
    assert prefix[-2:] == ["--pdeathsig", "INT"]
    launcher._prefix_of_root.cache_clear()
    monkeypatch.setattr("config.embedded.postgres.shutil.which", lambda _: None)
    with pytest.raises(EngineError, match="run as a plain user or set EXPENDI_DATABASE_URL"):
        launcher.without_root()
    launcher._prefix_of_root.cache_clear()


def test_a_plain_user_needs_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.embedded.postgres.os.geteuid", lambda: 1000)
    assert launcher.without_root(SIGINT) == []
