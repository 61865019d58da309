"""What texts mean: `embed_texts` reads a user's new ones, and a desk answers what a query means while someone waits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from handlers import search
from handlers.rules.prompts import MEMO_MAX, cleaned
from jobs.job import Job, Tools
from jobs.outbound.provider import ProviderFailed
from jobs.outbound.vectors import OverCap, Vectors, turned, written
from store import outbox
from store.blind import Blinds
from store.outbox import Claim
from store.postgres import in_transaction
from store.records import Address

log = structlog.get_logger(__name__)

SLICE_S = 15.0
"""Time of one run (s): some thousand texts of the local model; what is left is a run of its own."""
TIMEOUT_S = 40.0
"""Limit of one run (s): a slice, and the slowest call of a model at its end."""
FIRST = -(2**63)


async def embed(tools: Tools, claim: Claim) -> bool:
    """Read a user's texts that the user's model has not read."""
    deadline = time.monotonic() + SLICE_S
    if tools.meaning is not None:
        user = claim.args["user"]
        vectors = tools.meaning.of(consents=await search.consents(tools.deps, user))
        try:
            if not (await read(tools, user, vectors, deadline=deadline)).done:
                await outbox.forgive(tools.deps.pool, claim)
                return False
        except OverCap as error:
            log.info("texts_not_read", user=user, reason=str(error))  # tomorrow's search asks again
    return await in_transaction(tools.deps.pool, lambda tx: outbox.done(tx, claim))


@dataclass(frozen=True, slots=True)
class Read:
    """How many texts were read, and whether those are all."""

    count: int
    done: bool


async def read(tools: Tools, user: Address, vectors: Vectors, *, deadline: float) -> Read:
    """Read what a model has not read of a user, up to a deadline (s, monotonic); raises ProviderFailed or OverCap."""
    above, count = FIRST, 0
    while True:
        found = await search.waiting(tools.deps, user, vectors.model, above=above)
        if found.texts:
            made = await vectors.make(user, [each.text for each in found.texts], "passage")
            kept = {
                each.id: written(turned(vector, each.blind)) for each, vector in zip(found.texts, made, strict=True)
            }
            await search.keep(tools.deps, user, vectors.model, vectors=kept)
            count += len(kept)
        if found.above is None:
            return Read(count, done=True)
        above = found.above
        if time.monotonic() > deadline:
            return Read(count, done=False)


async def answer(tools: Tools, question: Mapping[str, Any]) -> Mapping[str, object]:
    """What a query means: the model, and its vector as each of the user's keys turns it."""
    try:
        return await _answer(tools, question["user"], question["text"])
    except OverCap:
        return {"error": "over_cap"}
    except ProviderFailed as error:
        log.warning("query_not_read", reason=str(error))
        return {"error": "failed"}
    except Exception:  # where a question's failure ends: logged, and told to who waits
        log.exception("question_failed")
        return {"error": "failed"}


async def _answer(tools: Tools, user: Address, text: str) -> Mapping[str, object]:
    if tools.meaning is None:
        return {"error": "failed"}
    vectors = tools.meaning.of(consents=await search.consents(tools.deps, user))
    [vector] = await vectors.make(user, [cleaned(text, MEMO_MAX)], "query")
    turns = {blind.key_id: written(turned(vector, blind)) for blind in Blinds.of(tools.deps.settings).of_user(user)}
    return {"model": vectors.model, "vectors": turns}


EMBED_TEXTS = Job(search.EMBED, "slow", embed, TIMEOUT_S)
