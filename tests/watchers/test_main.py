"""`python -m watchers` as operators run it: it follows, it stops when told, and says what is wrong in one sentence."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.embedded.chain import Anvil
from store import cursors
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.waiting import until
from watchers.devnet.node import Node

STOP_S = 2
"""Time a watcher has to stop cleanly."""


@dataclass
class Machine:
    """Where a watcher runs: its environment and its chain."""

    environment: dict[str, str]
    anvil: Anvil
    pool: Pool

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run to its end; returns exit code, output and errors."""
        async with self.started(*arguments) as child:
            out, err = await asyncio.wait_for(child.communicate(), timeout=20)
        return child.returncode or 0, out.decode(), err.decode()

    @asynccontextmanager
    async def started(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "watchers", *arguments, env=self.environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield child
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()

    async def cursor(self) -> int:
        found = await cursors.cursor(self.pool, 31337)
        return found.number if found is not None else -1


@pytest.fixture
def machine(make_settings: MakeSettings, pool: Pool, anvil: Anvil, tmp_path: Path) -> Machine:
    settings = make_settings()
    table = tmp_path / "chains.toml"
    table.write_text(f'[[chain]]\nname = "local"\nid = 31337\nrpc = ["{anvil.rpc}"]\nws = "{anvil.ws}"\n')
    environment = {
        "PATH": os.environ["PATH"],
        "EXPENDI_DATABASE_URL": settings.database_url,
        "EXPENDI_REDIS_URL": settings.redis_url,
        "EXPENDI_CLICKHOUSE_URL": settings.clickhouse_url,
        "EXPENDI_CHAINS_FILE": str(table),
        "EXPENDI_DATA_DIR": str(tmp_path / "data"),
        "EXPENDI_METRICS_PORT": "0",
    }
    return Machine(environment, anvil, pool)


async def test_it_follows_until_it_is_told_to_stop(machine: Machine) -> None:
    async with Node(machine.anvil.rpc) as node, machine.started() as child:
        await node.mine(3)
        await until(lambda: reached(machine, 3), 20)
        await node.mine(2)
        await until(lambda: reached(machine, 5))

        child.send_signal(signal.SIGTERM)
        _, err = await asyncio.wait_for(child.communicate(), timeout=STOP_S)

    assert child.returncode == 0, err.decode()
    assert b"Traceback" not in err


async def reached(machine: Machine, number: int) -> bool:
    return await machine.cursor() == number


async def test_standby_takes_over_when_the_writer_dies(machine: Machine) -> None:
    async with Node(machine.anvil.rpc) as node, machine.started() as writer:
        await until(lambda: reached(machine, 0), 20)
        async with machine.started() as standby:
            writer.kill()
            await node.mine(3)
            await until(lambda: reached(machine, 3), 20)
            standby.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(standby.wait(), timeout=STOP_S) == 0


async def test_doctor_says_one_line_per_chain(machine: Machine) -> None:
    code, out, _ = await machine.run("doctor")

    (line,) = map(json.loads, out.splitlines())
    assert code == 0
    assert (line["name"], line["url"], line["ok"], line["advice"]) == ("local", machine.anvil.rpc, True, "")
    assert line["version"].startswith("anvil/")


async def test_chain_that_is_not_listed_is_refused_in_one_sentence(machine: Machine) -> None:
    code, out, err = await machine.run("--chain", "5")

    assert (code, out) == (1, "")
    assert err == "--chain 5 is not in the chain table; it lists 31337.\n"


async def test_help_names_the_verbs(machine: Machine) -> None:
    code, out, _ = await machine.run("--help")

    assert code == 0
    assert "doctor" in out
    assert "--chain ID" in out
