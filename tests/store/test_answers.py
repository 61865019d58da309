"""Answers are kept by question, and only as long as Redis feels like it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from config.embedded.valkey import Valkey
from store import answers
from store.answers import Answers, Question
from store.redis import Client, open_redis
from tests.factories import make_address

ASKED = Question(make_address("me"), 7, "trends", {"timeframe": "day", "categories": None})


@pytest.fixture
async def redis(private_valkey: Valkey) -> AsyncIterator[Client]:
    client = open_redis(private_valkey.url)
    yield client
    await client.aclose()


def makes(*made: bytes) -> Callable[[], Awaitable[bytes]]:
    left = list(made)

    async def make() -> bytes:
        return left.pop(0)

    return make


async def test_answer_is_made_once(redis: Client) -> None:
    kept = Answers(redis)
    make = makes(b"first", b"second")
    assert [await kept.answer(ASKED, make) for _ in range(3)] == [b"first"] * 3
    assert 0 < await redis.ttl(ASKED.key) <= answers.TTL_S


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, user=make_address("you")),
        replace(ASKED, version=8),
        replace(ASKED, route="forecast"),
        replace(ASKED, parameters={"timeframe": "day", "categories": []}),
    ],
)
async def test_every_part_of_a_question_makes_another_one(redis: Client, other: Question) -> None:
    kept = Answers(redis)
    make = makes(b"first", b"second")
    assert await kept.answer(ASKED, make) == b"first"
    assert await kept.answer(other, make) == b"second"
    assert ASKED.tag != other.tag


async def test_order_of_parameters_makes_no_other_question() -> None:
    turned = dict(reversed(list(ASKED.parameters.items())))
    assert replace(ASKED, parameters=turned).key == ASKED.key


async def test_large_answer_is_not_kept(redis: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LARGEST", 3)
    kept = Answers(redis)
    make = makes(b"first", b"second")
    assert [await kept.answer(ASKED, make) for _ in range(2)] == [b"first", b"second"]


async def test_redis_that_is_away_is_left_alone_for_a_while_and_then_asked_again(tmp_path: Path) -> None:
    now = 100.0
    with Valkey(tmp_path / "mine") as valkey:
        client = open_redis(valkey.url)
        kept = Answers(client, clock=lambda: now)
        valkey.kill()
        assert await kept.answer(ASKED, makes(b"made")) == b"made"
        valkey.start()
        assert await kept.answer(ASKED, makes(b"again")) == b"again"
        assert await client.get(ASKED.key) is None
        now += answers.PAUSE_S
        assert await kept.answer(ASKED, makes(b"kept")) == b"kept"
        assert await client.get(ASKED.key) == b"kept"
        await client.aclose()
