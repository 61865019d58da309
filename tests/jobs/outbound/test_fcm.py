"""The push client against the fake provider: every answer has its fate, and nothing blocks the loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from config.embedded import fcm as fake
from config.embedded.fcm import PAYLOAD_BYTES, Answer, FakeFcm
from config.settings import SettingsError
from handlers.rules import push_texts
from jobs.outbound import fcm
from jobs.outbound.fcm import Fcm
from jobs.outbound.push import Message


@pytest.fixture
async def phones(tmp_path: Path) -> AsyncIterator[FakeFcm]:
    async with fake.serving(tmp_path) as phones:
        yield phones


@pytest.fixture
async def provider(phones: FakeFcm) -> AsyncIterator[Fcm]:
    async with fcm.opened(phones.credentials, url=phones.url) as provider:
        yield provider


def make_message(**overrides: Any) -> Message:
    fields: dict[str, Any] = {
        "title": "Title",
        "body": "Body",
        "data": {"type": "spending_alert", "event_id": "e1", "seq": "1"},
        "badge": 2,
        "collapse_key": "k" * 32,
        "ttl": timedelta(hours=1),
        "expires_at": 1_800_000_000,
        **overrides,
    }
    return Message(**fields)


async def test_tokens_go_out_in_chunks_and_outcomes_come_in_their_order(
    provider: Fcm, phones: FakeFcm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fcm.CHUNK == 500
    monkeypatch.setattr(fcm, "CHUNK", 20)
    for gone in ("t3", "t41"):
        phones.plan(gone, fake.UNREGISTERED)
    outcomes = await provider.send(make_message(), [f"t{n}" for n in range(45)])
    assert [n for n, outcome in enumerate(outcomes) if outcome.fate == "gone"] == [3, 41]
    assert sum(outcome.fate == "sent" for outcome in outcomes) == len(phones.got) == 43
    assert [sorted(phones.asked[first : first + 20]) for first in (0, 20, 40)] == [
        sorted(f"t{n}" for n in range(first, min(first + 20, 45))) for first in (0, 20, 40)
    ]
    assert phones.token_requests == 1


FATES = (
    (fake.UNREGISTERED, "gone", None),
    (Answer(403, "SENDER_ID_MISMATCH"), "gone", None),
    (Answer(400, "INVALID_ARGUMENT"), "refused", None),
    (fake.QUOTA, "later", 30.0),
    (fake.UNAVAILABLE, "later", None),
    (Answer(500, "INTERNAL"), "later", None),
    (Answer(401, "THIRD_PARTY_AUTH_ERROR"), "later", None),
    (fake.LOST, "later", None),
)


async def test_every_answer_has_its_fate_and_is_asked_for_once(provider: Fcm, phones: FakeFcm) -> None:
    for n, (answer, _, _) in enumerate(FATES):
        phones.plan(f"t{n}", answer)
    outcomes = await provider.send(make_message(), [*(f"t{n}" for n in range(len(FATES))), "good"])
    assert [(outcome.fate, outcome.retry_after_s) for outcome in outcomes] == [
        *((fate, after) for _, fate, after in FATES),
        ("sent", None),
    ]
    assert sorted(phones.asked) == sorted({*phones.asked})


async def test_access_token_that_is_refused_is_fetched_anew_for_the_next_push(provider: Fcm, phones: FakeFcm) -> None:
    await provider.send(make_message(), ["t"])
    phones.plan("t", Answer(401, "UNAUTHENTICATED"))
    assert [outcome.fate for outcome in await provider.send(make_message(), ["t"])] == ["later"]
    assert [outcome.fate for outcome in await provider.send(make_message(), ["t"])] == ["sent"]
    assert phones.token_requests == 2


async def test_provider_that_is_away_says_later(phones: FakeFcm, tmp_path: Path) -> None:
    account = json.loads(phones.credentials.read_bytes())
    path = tmp_path / "away.json"
    for uri in (account["token_uri"], "http://127.0.0.1:9/token"):
        path.write_text(json.dumps({**account, "token_uri": uri}))
        async with fcm.opened(path, url="http://127.0.0.1:9") as provider:
            assert [outcome.fate for outcome in await provider.send(make_message(), ["t"])] == ["later"]


async def test_fetching_the_access_token_does_not_block_the_loop(provider: Fcm, phones: FakeFcm) -> None:
    """The fake answers in this very loop: a client that blocked it would wait for itself."""
    async with asyncio.timeout(5):
        both = await asyncio.gather(*(provider.send(make_message(), [f"t{n}"]) for n in range(2)))
    assert [outcome.fate for outcomes in both for outcome in outcomes] == ["sent", "sent"]
    assert phones.token_requests == 1


async def test_silent_message_makes_no_sound_anywhere(provider: Fcm, phones: FakeFcm) -> None:
    await provider.send(make_message(), ["loud"])
    await provider.send(make_message(silent=True), ["silent"])
    loud, silent = phones.got
    assert (loud["android"]["priority"], silent["android"]["priority"]) == ("high", "normal")
    assert "sound" not in silent["apns"]["payload"]["aps"]
    assert silent["apns"]["payload"]["aps"]["interruption-level"] == "passive"
    assert silent["webpush"]["notification"]["silent"] is True
    assert phones.buzzes("silent") == []


def test_file_that_is_no_service_account_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"type": "user"}')
    for path in (tmp_path / "bad.json", tmp_path / "none.json"):
        with pytest.raises(SettingsError, match="EXPENDI_FCM_CREDENTIALS"):
            fcm._app(path)


async def test_largest_push_is_taken(provider: Fcm, phones: FakeFcm) -> None:
    facts = dict.fromkeys(("title", "message", "category", "amount"), "😈" * 5000)
    text = push_texts.text("spending_alert", facts, locale="en", hide_amounts=False)
    assert text is not None
    data = push_texts.data("spending_alert", facts, event_id="e" * 32, seq=2**53)
    outcomes = await provider.send(make_message(title=text.title, body=text.body, data=data), ["t"])
    assert [outcome.fate for outcome in outcomes] == ["sent"]
    too_large = make_message(data={"x": "x" * PAYLOAD_BYTES})
    assert [outcome.fate for outcome in await provider.send(too_large, ["t"])] == ["refused"]
