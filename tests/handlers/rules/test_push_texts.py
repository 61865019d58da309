from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from handlers.resources import NoticeKind
from handlers.rules.push_texts import DATA, FALLBACK, RETRACTED, TEXTS, Text, clip, data, text

FACTS: dict[str, Any] = {
    "title": "Food at 80 %",
    "message": "You have spent $80.00 of $100.00.",
    "category": "Food",
    "amount": "$80.00",
    "daily_yield": "12.3456",
    "total_yield": "1200.5",
    "goal_id": "g1",
    "goal_name": "Bike",
    "progress": 50,
    "transaction_id": "1:0xab:0",
    "anomaly_type": "drain",
    "code": "INVESTOR_1K",
    "tier": "gold",
    "bucket": "Rent",
    "bucket_id": "b1",
    "name": "Ann",
    "challenge": "No coffee",
    "challenge_id": "c1",
    "rank": 2,
    "count": 9,
}


def say(kind: str, *, locale: str = "en", hide: bool = False, **facts: Any) -> Text | None:
    return text(kind, FACTS | facts, locale=locale, hide_amounts=hide)


@pytest.mark.parametrize(
    ("kind", "title", "body"),
    [
        ("spending_alert", "💰 Food at 80 %", "You have spent $80.00 of $100.00."),
        ("yield_update", "📈 Portfolio Update", "Your investments earned $12.35 today!"),
        ("goal_milestone", "🎯 Goal Milestone!", "You're 50% towards your Bike!"),
        ("transaction_received", "💸 Money received", "You received $80.00."),
        ("delegate_spend", "👤 A delegate spent", "A delegate spent $80.00 from Rent."),
    ],
)
def test_texts_are_those_of_the_contract(kind: str, title: str, body: str) -> None:
    assert say(kind) == Text(title, body)


@pytest.mark.parametrize("locale", TEXTS)
def test_every_language_says_every_kind_and_hides_amounts(locale: str) -> None:
    assert TEXTS[locale].keys() == TEXTS[FALLBACK].keys()
    for kind in (*get_args(NoticeKind), RETRACTED):
        shown, hidden = say(kind, locale=locale), say(kind, locale=locale, hide=True)
        assert shown is not None
        assert hidden is not None
        assert not {"80.00", "100.00", "12.35"} & set(hidden.body.replace("$", "").split())
        assert "80.00" not in hidden.title + hidden.body
        assert "{" not in shown.title + shown.body + hidden.body


def test_a_day_of_losses_has_its_own_text_and_a_day_of_nothing_none() -> None:
    assert say("yield_update", daily_yield="-1234.5") == Text(
        "📈 Portfolio Update", "Your investments lost $1,234.50 today."
    )
    for nothing in ("0", "0.00", "-0.001", "0.004"):
        assert say("yield_update", daily_yield=nothing) is None


@pytest.mark.parametrize(("locale", "language"), [("de-AT", "de"), ("DE_de", "de"), ("fr", "en"), ("", "en")])
def test_language_is_that_of_the_device_else_english(locale: str, language: str) -> None:
    assert say("transaction_received", locale=locale) == say("transaction_received", locale=language)


def test_data_is_strings_and_always_names_event_and_seq() -> None:
    for kind in DATA:
        found = data(kind, FACTS, event_id="e1", seq=7)
        assert {"type": kind, "event_id": "e1", "seq": "7"}.items() <= found.items()
        assert all(isinstance(value, str) for value in found.values())
    assert data("goal_milestone", FACTS, event_id="e1", seq=7)["progress"] == "50"
    assert data("anomaly_alert", {"transaction_id": None}, event_id="e1", seq=7).keys() == {"type", "event_id", "seq"}


@pytest.mark.parametrize("hostile", ["😈" * 5000, '"\\' * 5000, "\u0000" * 5000, "\n{title}{0}%s" * 500])
def test_no_facts_make_a_push_too_large_or_speak_in_its_templates(hostile: str) -> None:
    facts = dict.fromkeys(FACTS, hostile) | {"daily_yield": "1"}
    for kind in DATA:
        said = text(kind, facts, locale="en", hide_amounts=False)
        assert said is not None
        parts = [{"title": said.title, "body": said.body}, data(kind, facts, event_id="e" * 32, seq=2**53)]
        assert len(json.dumps(parts, ensure_ascii=False).encode()) <= 4096


def test_clipping_cuts_no_character() -> None:
    assert clip("äöü", 6) == "äöü"
    assert clip("äöüä", 7) == "äö…"
    assert clip("a\x00b\n", 10) == "ab"
