"""The fake provider as a process of its own, spoken to by the official client."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from config.embedded.fcm import Fcm
from jobs.outbound import fcm
from jobs.outbound.push import Message


async def test_the_process_serves_the_official_client_and_tells_what_phones_got(tmp_path: Path) -> None:
    message = Message(
        title="Title",
        body="Body",
        data={"event_id": "e1"},
        badge=1,
        collapse_key="key",
        ttl=timedelta(hours=1),
        expires_at=1_800_000_000,
    )
    with Fcm(tmp_path) as engine:
        async with fcm.opened(engine.credentials, url=engine.url) as provider:
            outcomes = await provider.send(message, [f"token-{n}" for n in range(3)])
        assert [outcome.fate for outcome in outcomes] == ["sent"] * 3
        assert sorted(each["token"] for each in engine.got()) == [f"token-{n}" for n in range(3)]
