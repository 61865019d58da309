"""What of a text can be found, and what of a query finds it. Pure; hashing is done elsewhere (store/blind.py).

A text is found by any part of its words of three characters or more, by the beginning of a word below that, and, when
no text of the user has the part that is asked for, by words that share half of its trigrams: so a typing error finds
what was meant, and adds nothing where there was none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from handlers.rules.prompts import MEMO_MAX, NAME_MAX, cleaned

WORDS_MAX = 16
"""Words of one query; people type two or three."""
FUZZY_FROM = 5
"""Characters from which a word may be meant otherwise than it is written: half of a shorter one is in many others."""

_WORD = re.compile(r"[^\W_]+")
_HEX = re.compile(r"0x[0-9a-f]{1,64}")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
"""Scripts that write without spaces: a word may begin anywhere."""


@dataclass(frozen=True, slots=True)
class Document:
    """What is searched of one transaction, '' where there is none: each of it is its user's own word for something."""

    memo: str = ""
    label: str = ""
    bucket: str = ""
    to_bucket: str = ""
    category: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """In a fixed order, so that the same texts are the same document."""
        return (self.memo, self.label, self.bucket, self.to_bucket, self.category)

    @property
    def said(self) -> str:
        """What a model reads to know what it means: one line, without addresses."""
        limits = (MEMO_MAX, NAME_MAX, NAME_MAX, NAME_MAX, NAME_MAX)
        parts = (cleaned(text, limit) for text, limit in zip(self.texts, limits, strict=True))
        return ". ".join(part for part in parts if part)

    @property
    def grams(self) -> frozenset[str]:
        """Every part by which it is found."""
        return frozenset(gram for text in self.texts for word in words(text) for gram in _grams_of(word))


@dataclass(frozen=True, slots=True)
class Word:
    """A word that is asked for: parts that a text must have all, else parts of which half will do (none: nothing)."""

    exact: tuple[str, ...]
    fuzzy: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for: every word, and beginnings of addresses or hashes."""

    words: tuple[Word, ...]
    prefixes: tuple[str, ...]


def query(text: str) -> Query:
    """The query of a text that a user typed; without a word in it, it finds nothing. Words beyond WORDS_MAX are many
    enough to be left out.
    """
    asked = list(dict.fromkeys(words(text)))[:WORDS_MAX]
    prefixes = tuple(word for word in asked if _HEX.fullmatch(word))
    return Query(tuple(_word(word) for word in asked if word not in prefixes), prefixes)


def words(text: str) -> list[str]:
    """Words without case, accents and compatibility forms."""
    whole = unicodedata.normalize("NFKD", text)
    plain = "".join(char for char in whole if not unicodedata.combining(char)).casefold()
    return _WORD.findall(unicodedata.normalize("NFC", plain))


def _word(word: str) -> Word:
    fuzzy = tuple(_windows(_padded(word), 3)) if len(word) >= FUZZY_FROM else ()
    if len(word) >= 3:
        return Word(tuple(_windows(word, 3)), fuzzy)
    exact = word if _UNSPACED.search(word) else f"{' ' * (3 - len(word))}{word}"
    return Word((exact,), fuzzy)


def _grams_of(word: str) -> Iterable[str]:
    yield from _windows(_padded(word), 3)
    if _UNSPACED.search(word):
        yield from word
        yield from _windows(word, 2)


def _padded(word: str) -> str:
    return f"  {word} "


def _windows(word: str, size: int) -> Iterable[str]:
    return dict.fromkeys(word[at : at + size] for at in range(len(word) - size + 1))
