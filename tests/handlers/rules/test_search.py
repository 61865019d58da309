from __future__ import annotations

import pytest

from handlers.rules.search import WORDS_MAX, Document, Query, query, words


def finds(q: str, *texts: str) -> bool:
    """As the store decides it, with the words in clear."""
    grams = [Document(memo=text).grams for text in texts]
    asked = query(q).words
    wanted = []
    for word in asked:
        known = any(set(word.exact) <= each for each in grams)
        wanted.append((word.exact, len(word.exact)) if known else (word.fuzzy, (len(word.fuzzy) + 1) // 2 or 1))
    return bool(asked) and any(all(len(set(parts) & each) >= least for parts, least in wanted) for each in grams[:1])


@pytest.mark.parametrize(
    ("q", "text"),
    [
        ("netflix", "Netflix subscription"),
        ("NETFLIX", "netflix"),
        ("flix", "Netflix"),
        ("net sub", "Netflix subscription"),
        ("sub net", "Netflix subscription"),
        ("n", "Netflix"),
        ("ne", "Netflix"),
        ("cafe", "Café de Flore"),
        ("CAFÉ", "cafe"),
        ("strasse", "Hauptstraße 5"),
        ("ﬁne", "fine"),
        ("５", "Hauptstraße 5"),
        ("netflx", "Netflix"),
        ("neftlix", "Netflix"),
        ("grocerys", "weekly groceries"),
        ("買菜", "超市買菜"),
        ("菜", "超市買菜"),
        ("такси", "Такси домой"),
        ("rock'n", "rock'n'roll"),
        ("food&dining", "Food & Dining"),
    ],
)
def test_a_text_is_found_by(q: str, text: str) -> None:
    assert finds(q, text)


@pytest.mark.parametrize(
    ("q", "text"),
    [
        ("rent", "restaurant"),
        ("et", "Netflix"),
        ("netflix rent", "Netflix subscription"),
        ("%", "100 % cotton"),
        ("_", "a_b"),
        ("xyz", "Netflix"),
        ("cat", "dog"),
        ("", "anything"),
        ("市買x", "超市買菜"),
    ],
)
def test_a_text_is_not_found_by(q: str, text: str) -> None:
    assert not finds(q, text)


def test_what_is_there_as_it_is_asked_for_leaves_out_what_is_only_like_it() -> None:
    assert finds("grocerie", "groceries")
    assert not finds("grocery", "groceries", "grocery")
    assert finds("grocery", "groceries", "rent")


def test_beginnings_of_addresses_are_told_from_words() -> None:
    assert query("0xAB rent") == Query(query("rent").words, ("0xab",))
    assert query("0x" + "f" * 64).prefixes == ("0x" + "f" * 64,)
    assert query("0xbar").prefixes == query("0x").prefixes == query("0x" + "f" * 65).prefixes == ()


def test_a_query_is_bounded() -> None:
    assert len(query(" ".join(f"w{n}" for n in range(100))).words) == WORDS_MAX
    assert len(query("rent rent RENT").words) == 1


def test_a_document_of_nothing_has_no_parts() -> None:
    assert Document(memo="!!! …").grams == frozenset()
    assert words("a_b-c") == ["a", "b", "c"]
