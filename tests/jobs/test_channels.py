"""The real worker processes: a push and a letter leave by themselves, through what jobs/__main__.py wires."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.embedded import fcm as fake
from config.embedded.children import ROOT, Launch, end, python, spawn
from config.embedded.fcm import FakeFcm
from config.embedded.valkey import Valkey
from config.settings import Settings, variable
from store import devices, log, mails, notifications, pushes
from store.devices import Registration
from store.postgres import Pool
from store.pushes import Intent
from store.records import Draft
from store.sealed import KeyRing
from tests.conftest import MakeSettings
from tests.factories import make_address
from tests.handlers.ledger import sign_in
from tests.jobs.postbox import Postbox, postbox
from tests.realtime.test_rest_notifications import SEAL_KEY
from tests.store.test_notifications import make_notice, record
from tests.waiting import until

ANN = make_address("ann")


@contextmanager
def worker(settings: Settings, queue: str, log_file: Path) -> Iterator[None]:
    given = ("database_url", "redis_url", "data_dir", "clickhouse_url", "chains_file", "fcm_credentials", "fcm_url")
    env = {variable(name): str(getattr(settings, name)) for name in given} | {"PATH": os.environ["PATH"]}
    env[variable("secret_key")] = settings.secret_key.get_secret_value()
    env[variable("seal_keys")] = SEAL_KEY
    env[variable("mail_url")] = settings.mail_url.get_secret_value()
    with log_file.open("wb") as output:
        child = spawn(Launch(python("jobs", queue), cwd=ROOT, env=env), output=output)
    try:
        yield
        assert child.poll() is None, log_file.read_text()
    finally:
        assert end(child) == 0, log_file.read_text()


async def prepare(pool: Pool, settings: Settings) -> None:
    """A user with a phone and an address, a push that is due, and a letter that is."""
    ring, now = KeyRing.of(settings), datetime.now(UTC)
    await sign_in(pool, ANN)
    phone = Registration(token="phone", platform="ios", locale="en", app_version="1")
    intent = Intent(user=ANN, subject="s", event_id="e1", kind="transaction_received", facts={"amount": "$5.00"})
    async with pool.acquire() as conn, conn.transaction():
        await devices.register(conn, ring, ANN, phone, at=now)
        await log.append(conn, await log.lock(conn, [ANN]), [Draft(ANN, "e1", "budget_alert", 1, {})], at=now)
        await pushes.record(conn, [intent], at=now, hold_s=0)
    sealed = ring.seal("ann@example.com", purpose="email", owner=ANN)
    await pool.execute("UPDATE users SET email = $1", sealed)
    await notifications.set_preferences(pool, ANN, {("spending_alert", "email"): True})
    await record(pool, make_notice(user=ANN, created_at=now - timedelta(minutes=5)))
    assert await mails.record_notices(pool, after=now - timedelta(hours=1), until=now, at=now, limit=10) == 1


@pytest.mark.parametrize("queue", ["quick", "slow"])
async def test_worker_sends_what_is_due(
    queue: str, pool: Pool, make_settings: MakeSettings, private_valkey: Valkey, tmp_path: Path
) -> None:
    async with fake.serving(tmp_path / "fcm") as phones, postbox() as box:
        settings = make_settings(
            redis_url=private_valkey.url,
            chains_file=ROOT / "config" / "chains.toml",
            seal_keys=(SEAL_KEY,),
            fcm_credentials=phones.credentials,
            fcm_url=phones.url,
            mail_url=box.url,
        )
        await prepare(pool, settings)
        with worker(settings, queue, tmp_path / "worker.log"):
            await until(lambda: done(queue, phones, box), timeout_s=30)
    got = (len(phones.got), len(box.got))
    assert got == ((1, 0) if queue == "quick" else (0, 1))


def done(queue: str, phones: FakeFcm, box: Postbox) -> bool:
    return bool(phones.got if queue == "quick" else box.got)
