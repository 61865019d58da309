from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from uuid import UUID

import pytest

from handlers.rules.push_policy import EXPIRY, SEND, Verdict, collapse_key, decide, retry_s
from store.notifications import Preferences
from store.pushes import Audience, PushRow

NOW = datetime(2026, 12, 24, 12, tzinfo=UTC)
ANN = Audience("0xann", "UTC", "en", None, None, False)
PUSH = PushRow(
    id=UUID(int=1),
    user="0xann",
    subject="s",
    transaction_id=None,
    event_id="e",
    seq=7,
    kind="spending_alert",
    facts={},
    severity="info",
    silent=False,
    delivered=frozenset(),
    attempts=1,
    reverted_at=None,
    created_at=NOW - timedelta(seconds=11),
    stands=True,
)
RECEIVED = replace(PUSH, kind="transaction_received")
OFF = Preferences({("spending_alert", "push"): False})
NIGHT = replace(ANN, quiet_start=time(22), quiet_end=time(13))


@pytest.mark.parametrize(
    ("push", "person", "wishes", "shown", "verdict"),
    [
        (PUSH, ANN, Preferences(), None, SEND),
        (PUSH, ANN, Preferences(), 6, SEND),
        (PUSH, ANN, Preferences(), 7, Verdict("held", "shown")),
        (PUSH, None, Preferences(), None, Verdict("dropped", "no_user")),
        (PUSH, ANN, OFF, None, Verdict("dropped", "unwanted")),
        (replace(RECEIVED, stands=False), ANN, Preferences(), None, Verdict("dropped", "reverted")),
        (replace(PUSH, stands=False), ANN, Preferences(), None, SEND),
        (replace(PUSH, reverted_at=NOW), ANN, Preferences(), None, Verdict("dropped", "reverted")),
        (replace(PUSH, created_at=NOW - EXPIRY), ANN, Preferences(), None, SEND),
        (replace(PUSH, created_at=NOW - EXPIRY * 2), ANN, Preferences(), None, Verdict("dropped", "expired")),
        (PUSH, NIGHT, Preferences(), None, Verdict("later", "quiet_hours", NOW + timedelta(hours=1))),
        (PUSH, NIGHT, Preferences(), 7, Verdict("held", "shown")),
        (replace(PUSH, silent=True), NIGHT, OFF, 9, SEND),
        (replace(RECEIVED, silent=True, stands=False), ANN, Preferences(), 9, Verdict("dropped", "reverted")),
        (PUSH, replace(NIGHT, quiet_end=time(22)), Preferences(), None, SEND),
    ],
)
def test_what_becomes_of_a_due_push(
    push: PushRow, person: Audience | None, wishes: Preferences, shown: int | None, verdict: Verdict
) -> None:
    assert decide(push, person, wishes, shown=shown, now=NOW) == verdict


def test_keys_tell_effects_and_users_apart_and_fit_every_provider() -> None:
    keys = {collapse_key(user, subject) for user in ("0xa", "0xb") for subject in ("s", "t")}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {32}


def test_pauses_double_up_to_a_bound_and_heed_the_provider() -> None:
    assert [retry_s(n, asked_s=None) for n in (1, 2, 3, 99)] == [5, 10, 20, 600]
    assert retry_s(1, asked_s=30) == 30
    assert retry_s(9, asked_s=1) == 600
