"""The local model, loaded once per test process, and categories for it to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from handlers.rules.prompts import Candidate, Item
from jobs.outbound.embeddings import Embedder, Guess, Judge, load_judge

DEFAULTS = [
    Candidate(f"00000000-0000-4000-8000-{n:012}", slug, name, "")
    for n, (slug, name) in enumerate(
        [
            ("food", "Food & Dining"),
            ("transport", "Transportation"),
            ("shopping", "Shopping"),
            ("entertainment", "Entertainment"),
            ("health", "Health & Fitness"),
            ("utilities", "Utilities"),
            ("investment", "Investment"),
            ("savings", "Savings"),
        ],
        start=1,
    )
]
ID = {candidate.slug: candidate.id for candidate in DEFAULTS}


@cache
def embedder() -> Embedder:
    return Embedder()


@cache
def judge() -> Judge:
    return load_judge(embedder())


class Loaded:
    """The real local model without a thread of its own."""

    async def judge(self, items: Sequence[Item], candidates: Sequence[Candidate]) -> list[Guess | None]:
        return judge().judge(items, candidates)
