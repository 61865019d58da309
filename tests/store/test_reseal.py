from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import Settings
from store.postgres import Pool
from store.reseal import COLUMNS, SQL, reseal
from store.sealed import KeyRing
from tests.factories import make_address, make_hash
from tests.store.test_sealed import key

PEOPLE = [make_address(number) for number in range(5)]
OLD = KeyRing.of(Settings(seal_keys=[f"old:{key(1)}"]))
KEYS = [f"new:{key(2)}", f"old:{key(1)}"]
BOTH = KeyRing.of(Settings(seal_keys=KEYS))
NEW = KeyRing.of(Settings(seal_keys=[f"new:{key(2)}"]))


async def fill(pool: Pool) -> None:
    """Five people: an e-mail, four memos (two of them for a whole transaction) and a device each."""
    for user in PEOPLE:
        await pool.execute(
            "INSERT INTO users (address, email) VALUES ($1, $2)",
            user,
            OLD.seal(f"{user}@mail", purpose="email", owner=user),
        )
        for tx, n in ((1, None), (1, 0), (1, 3), (2, None)):
            memo = OLD.seal(f"memo {tx} {n}", purpose="memo", owner=user)
            await pool.execute(
                "INSERT INTO memos (user_address, chain_id, tx_hash, n, memo) VALUES ($1, 1, $2, $3, $4)",
                user,
                make_hash(tx),
                n,
                memo,
            )
        token = OLD.seal(f"token {user}", purpose="push_token", owner=user)
        await pool.execute(
            "INSERT INTO devices (user_address, token_hash, token, platform) VALUES ($1, $2, $3, 'ios')",
            user,
            user.encode(),
            token,
        )


async def sealed(pool: Pool) -> dict[str, list[tuple[str, bytes]]]:
    """Sealed bytes by purpose, with their owners."""
    return {
        "email": [tuple(row) for row in await pool.fetch("SELECT address, email FROM users ORDER BY 1")],
        "memo": [tuple(row) for row in await pool.fetch("SELECT user_address, memo FROM memos ORDER BY 1, tx_hash, n")],
        "push_token": [tuple(row) for row in await pool.fetch("SELECT user_address, token FROM devices ORDER BY 1")],
    }


async def texts(pool: Pool, ring: KeyRing) -> list[str]:
    return [
        ring.unseal(sealed_, purpose=purpose, owner=owner)  # type: ignore[arg-type]  # the literals of the line above
        for purpose, rows in (await sealed(pool)).items()
        for owner, sealed_ in rows
    ]


async def told(pool: Pool, ring: KeyRing, batch: int = 500) -> dict[str, tuple[int, int]]:
    return {each.column: (each.resealed, each.failed) async for each in reseal(pool, ring, batch=batch)}


@pytest.mark.parametrize("batch", [1, 3, 500])
async def test_everything_opens_with_the_new_key_alone(pool: Pool, batch: int) -> None:
    await fill(pool)
    before = await texts(pool, OLD)
    assert await told(pool, BOTH, batch) == {"e-mail": (5, 0), "memo": (20, 0), "push token": (5, 0)}
    assert await texts(pool, NEW) == before
    assert await told(pool, BOTH, batch) == {"e-mail": (0, 0), "memo": (0, 0), "push token": (0, 0)}


async def test_what_does_not_open_stays_and_is_counted(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    await fill(pool)
    await pool.execute("UPDATE users SET email = email || 'x'::bytea WHERE address = ANY ($1)", PEOPLE[1:3])
    before = dict((await sealed(pool))["email"])
    assert (await told(pool, BOTH, 2))["e-mail"] == (3, 2)
    after = dict((await sealed(pool))["email"])
    assert {user for user in PEOPLE if before[user] == after[user]} == set(PEOPLE[1:3])
    assert "@mail" not in capsys.readouterr().out


async def test_a_change_meanwhile_wins(pool: Pool) -> None:
    await fill(pool)
    user, column = PEOPLE[0], COLUMNS[0]
    read = await pool.fetchval("SELECT email FROM users WHERE address = $1", user)
    mine = NEW.seal("mine@mail", purpose="email", owner=user)
    await pool.execute("UPDATE users SET email = $2 WHERE address = $1", user, mine)
    late = NEW.seal("stale@mail", purpose="email", owner=user)
    assert await pool.fetchval(SQL[column.replace], [user], [read], [late]) == 0
    assert await pool.fetchval("SELECT email FROM users WHERE address = $1", user) == mine


async def test_the_verb_tells_its_progress_and_fails_when_something_stays(
    pool: Pool, database_url: str, tmp_path: Path
) -> None:
    await fill(pool)
    environment = {
        "PATH": os.environ["PATH"],
        "EXPENDI_DATA_DIR": str(tmp_path),
        "EXPENDI_DATABASE_URL": database_url,
        "EXPENDI_REDIS_URL": "redis://127.0.0.1:9",
        "EXPENDI_CLICKHOUSE_URL": "http://127.0.0.1:9/x",
        "EXPENDI_CHAINS_FILE": str(tmp_path / "chains.toml"),
        "EXPENDI_SEAL_KEYS": ",".join(KEYS),
    }

    def run() -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "store", "reseal"]
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=30, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    last = [json.loads(line) for line in done.stdout.splitlines() if "column" in line]
    assert {each["column"]: each["resealed"] for each in last} == {"e-mail": 5, "memo": 20, "push token": 5}
    await texts(pool, NEW)
    await pool.execute("UPDATE devices SET token = $1 WHERE user_address = $2", b"\x01\x03old...", PEOPLE[0])
    assert run().returncode == 1
