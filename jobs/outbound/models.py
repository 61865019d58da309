"""The models that categories are asked of, as jobs see them; wired in jobs/__main__.py by jobs/outbound/opening.py."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from handlers.rules.prompts import Answer, Candidate, Item
from jobs.outbound.embeddings import Guess
from store.records import Address


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for one user: items to judge and the closed list of categories."""

    user: Address
    items: Sequence[Item]
    candidates: Sequence[Candidate]


class Local(Protocol):
    """The model that always answers (jobs/outbound/embeddings.py)."""

    def judge(self, items: Sequence[Item], candidates: Sequence[Candidate]) -> Awaitable[list[Guess | None]]:
        """The likeliest candidate of each item; None where there is nothing to read."""
        ...


class Remote(Protocol):
    """Language models, which may answer (jobs/outbound/llm.py)."""

    def ask(self, question: Question) -> Awaitable[list[Answer | None]]:
        """An answer for each item, None where nobody gave one."""
        ...


@dataclass(frozen=True, slots=True)
class Models:
    """What categories are asked of; without a key `remote` is None."""

    local: Local
    remote: Remote | None = None
