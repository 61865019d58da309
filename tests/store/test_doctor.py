"""The two verbs of `python -m store`, as their callers run them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from config.embedded.children import ROOT
from store import doctor
from store.clickhouse import Analytics
from store.postgres import Pool
from tests.conftest import MakeSettings

NOBODY = 9
"""A port that nobody listens on."""


def run(verb: str, *words: str, **urls: str) -> subprocess.CompletedProcess[str]:
    ours = {f"EXPENDI_{name.upper()}": value for name, value in urls.items()}
    env = {"PATH": os.environ["PATH"], "EXPENDI_CHAINS_FILE": "chains.toml", "EXPENDI_DATA_DIR": "/nowhere", **ours}
    env |= {"EXPENDI_SECRET_KEY": "k" * 32, "EXPENDI_SEAL_KEYS": "k1:" + base64.b64encode(b"k" * 32).decode()}
    command = [sys.executable, "-m", "store", verb, *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)


async def test_migrate_names_each_file_once_and_doctor_is_content(
    database_url: str, pool: Pool, redis_url: str, analytics: Analytics
) -> None:
    await pool.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    urls = {"database_url": database_url, "redis_url": redis_url, "clickhouse_url": analytics.url}
    sick = run("doctor", **urls)
    assert sick.returncode == 1
    assert "run `expendi migrate`: 0001_spine" in sick.stdout

    first = run("migrate", **urls)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[0] == "postgresql: applied 0001_spine"
    again = run("migrate", **urls)
    assert (again.returncode, again.stdout) == (0, "")

    well = run("doctor", **urls)
    assert well.returncode == 0
    found = [json.loads(line) for line in well.stdout.splitlines()]
    assert [each["name"] for each in found] == ["postgresql", "redis", "clickhouse"]
    assert all(each["ok"] and each["version"] and each["url"] and not each["advice"] for each in found)


async def test_engines_that_do_not_answer_are_named_with_what_to_do(make_settings: MakeSettings) -> None:
    settings = make_settings(
        database_url=f"postgresql://me:hunter2@127.0.0.1:{NOBODY}/x?password=hunter2",
        redis_url=f"redis://:hunter2@127.0.0.1:{NOBODY}/0",
        clickhouse_url=f"http://me:hunter2@127.0.0.1:{NOBODY}/x",
        queue_url=f"redis://127.0.0.1:{NOBODY}/1",
    )
    found = await doctor.examine(settings)
    assert [each.name for each in found] == ["postgresql", "redis", "clickhouse", "queue"]
    assert not any(each.ok for each in found)
    assert "EXPENDI_QUEUE_URL" in found[-1].advice
    assert "hunter2" not in json.dumps([asdict(each) for each in found])


async def test_doctor_refuses_a_file_that_changed_after_it_was_applied(
    make_settings: MakeSettings, pool: Pool, analytics: Analytics
) -> None:
    await pool.execute("UPDATE schema_migrations SET checksum = 'other' WHERE name = '0001_spine'")
    (postgresql, _, clickhouse) = await doctor.examine(make_settings())
    assert not postgresql.ok
    assert "has changed since" in postgresql.advice
    assert clickhouse.ok


async def test_doctor_names_an_engine_that_is_too_old(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor.OLDEST, "redis", 99)
    found = {each.name: each for each in await doctor.examine(make_settings())}
    assert found["redis"].advice == "update it to 99 or newer."


def test_migrate_gives_up_with_a_sentence(tmp_path: Path) -> None:
    away: dict[str, Any] = {
        "database_url": f"postgresql://127.0.0.1:{NOBODY}/x",
        "redis_url": f"redis://127.0.0.1:{NOBODY}/0",
        "clickhouse_url": f"http://127.0.0.1:{NOBODY}/x",
    }
    said = run("migrate", "--wait", "0", **away)
    assert said.returncode == 1
    assert said.stderr.startswith("EXPENDI_DATABASE_URL names an engine that does not answer")
    assert "Traceback" not in said.stderr
