"""Categories without a model: the user's rules, then the user's own history. Pure, fast enough for ingest."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

Source = Literal["rule", "history", "model", "manual"]

SURE = Decimal("0.95")
"""Confidence of a payee that the user categorised by hand before."""
RULE = Decimal("1.00")
LIKELY = 0.8
"""Posterior from which history is believed without the payee being known."""
SAMPLES = 5
"""Manual choices before anything but the payee says something about a user."""

_WORD = re.compile(r"[^\W_]{3,}")
PRIOR = "*"
"""Feature that every choice has: how often each category was chosen at all."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of a transaction when it is categorised; amount band by powers of ten dollars."""

    counterparty: str | None
    bucket: str | None
    memo: str | None
    usd: Decimal | None

    @property
    def features(self) -> tuple[str, ...]:
        """What history remembers it by."""
        found = [PRIOR]
        found += [f"counterparty:{self.counterparty}"] if self.counterparty else []
        found += [f"bucket:{self.bucket.casefold()}"] if self.bucket else []
        found += [f"band:{band(self.usd)}"] if self.usd is not None else []
        return (*found, *(f"memo:{word}" for word in words(self.memo)))


@dataclass(frozen=True, slots=True)
class Assignment:
    """A category for a transaction, how sure, and why."""

    category_id: str
    confidence: Decimal
    source: Source
    reasoning: str


@dataclass(frozen=True, slots=True)
class Habits:
    """What a user taught: rules by (field, value), and how often a feature had a category."""

    rules: Mapping[tuple[str, str], str] = field(default_factory=dict)
    memory: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def band(usd: Decimal) -> int:
    """Order of magnitude of an amount in dollars, from -2 (cents) on."""
    return max(-2, usd.adjusted()) if usd > 0 else -2


def words(memo: str | None) -> tuple[str, ...]:
    """Words of a memo that mean something, at most eight."""
    return tuple(dict.fromkeys(_WORD.findall(memo.casefold())))[:8] if memo else ()


def assign(subject: Subject, habits: Habits) -> Assignment | None:
    """The category that rules or history give; None leaves it to the models."""
    return _by_rule(subject, habits.rules) or _by_history(subject, habits.memory)


def _by_rule(subject: Subject, rules: Mapping[tuple[str, str], str]) -> Assignment | None:
    asked = [
        ("counterparty", subject.counterparty),
        ("bucket", subject.bucket.casefold() if subject.bucket else None),
        *(("memo", word) for word in words(subject.memo)),
    ]
    for field_name, value in asked:
        if value is not None and (field_name, value) in rules:
            return Assignment(rules[field_name, value], RULE, "rule", f"your rule for {field_name} {value}")
    return None


def _by_history(subject: Subject, memory: Mapping[str, Mapping[str, int]]) -> Assignment | None:
    payee = memory.get(f"counterparty:{subject.counterparty}")
    if payee:
        chosen = max(sorted(payee), key=lambda category: payee[category])
        return Assignment(chosen, SURE, "history", "you chose this category for this payee before")
    prior = memory.get(PRIOR, {})
    total = sum(prior.values())
    if total < SAMPLES:
        return None
    posterior = _posterior(subject.features[1:], memory, prior, total)
    chosen = max(sorted(posterior), key=lambda category: posterior[category])
    if posterior[chosen] < LIKELY:
        return None
    confidence = Decimal(math.floor(min(posterior[chosen], 0.94) * 100)) / 100
    return Assignment(chosen, confidence, "history", "like what you chose for similar payments")


def _posterior(
    features: Sequence[str], memory: Mapping[str, Mapping[str, int]], prior: Mapping[str, int], total: int
) -> dict[str, float]:
    """Naive Bayes with one imagined sight of everything, so that nothing is impossible."""
    score = {category: math.log(count / total) for category, count in prior.items() if count}
    for feature in features:
        seen = memory.get(feature, {})
        for category in score:
            score[category] += math.log((seen.get(category, 0) + 1) / (prior[category] + 2))
    top = max(score.values())
    weight = {category: math.exp(value - top) for category, value in score.items()}
    whole = sum(weight.values())
    return {category: value / whole for category, value in weight.items()}


def taught(subject: Subject, category_id: str, memory: Mapping[str, Mapping[str, int]]) -> dict[tuple[str, str], int]:
    """New counts after a manual choice: the payee is this category's from now on, whatever it was before."""
    counts: dict[tuple[str, str], int] = {}
    for feature in subject.features:
        seen: Counter[str] = Counter(memory.get(feature, {}))
        at_least = max(seen.values(), default=0) if feature.startswith("counterparty:") else 0
        counts[feature, category_id] = max(seen[category_id], at_least) + 1
    return counts


def features_of(subjects: Iterable[Subject]) -> set[str]:
    """Every feature that history may be asked about."""
    return {feature for subject in subjects for feature in subject.features}
