from __future__ import annotations

from decimal import Decimal

import pytest

from handlers.rules.categorize import Habits, Subject, assign, band, taught, words

SHOP, OTHER = "0x" + "5" * 40, "0x" + "6" * 40
FOOD, FUN = "food", "fun"


def subject(counterparty: str | None = SHOP, bucket: str | None = None, memo: str | None = None) -> Subject:
    return Subject(counterparty, bucket, memo, Decimal(12))


def learn(choices: list[tuple[Subject, str]]) -> Habits:
    memory: dict[str, dict[str, int]] = {}
    for one, category in choices:
        for (feature, chosen), count in taught(one, category, memory).items():
            memory.setdefault(feature, {})[chosen] = count
    return Habits(memory=memory)


def test_nothing_known_leaves_it_to_the_models() -> None:
    assert assign(subject(), Habits()) is None


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        (("counterparty", SHOP), subject()),
        (("bucket", "weekly food"), subject(bucket="Weekly Food")),
        (("memo", "pizza"), subject(memo="Friday PIZZA night")),
    ],
)
def test_rule_of_the_user_comes_first(rule: tuple[str, str], asked: Subject) -> None:
    found = assign(asked, Habits(rules={rule: FOOD}))
    assert found is not None
    assert (found.category_id, found.source, found.confidence) == (FOOD, "rule", Decimal("1.00"))


def test_one_correction_makes_the_payee_right_from_then_on_whatever_it_was_before() -> None:
    habits = learn([(subject(), FOOD)] * 5 + [(subject(), FUN)])
    found = assign(subject(), habits)
    assert found is not None
    assert (found.category_id, found.source) == (FUN, "history")


def test_unknown_payee_follows_what_was_chosen_for_the_same_bucket() -> None:
    habits = learn(
        [(subject(f"0x{i:040x}", bucket="eat"), FOOD) for i in range(6)]
        + [(subject(f"0x{i:040x}", bucket="play"), FUN) for i in range(6, 12)]
    )
    found = assign(subject(OTHER, bucket="eat"), habits)
    assert found is not None
    assert (found.category_id, found.source) == (FOOD, "history")
    assert Decimal("0.8") <= found.confidence < Decimal("0.95")


def test_few_choices_say_nothing_of_another_payee() -> None:
    assert assign(subject(OTHER, bucket="eat"), learn([(subject(bucket="eat"), FOOD)] * 2)) is None


@pytest.mark.parametrize(
    ("usd", "expected"), [("0.001", -2), ("0.05", -2), ("5", 0), ("12", 1), ("99999", 4), ("0", -2)]
)
def test_amounts_are_remembered_by_their_magnitude(usd: str, expected: int) -> None:
    assert band(Decimal(usd)) == expected


def test_words_of_a_memo_are_few_and_without_noise() -> None:
    assert words("to: Caf\u00e9 am Markt, 12 \U0001f355!") == ("caf\u00e9", "markt")
    assert len(words(" ".join(f"word{i}" for i in range(50)))) == 8
