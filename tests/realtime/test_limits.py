from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from config.embedded.valkey import Valkey
from handlers.errors import RateLimited
from realtime.limits import Limiter, LocalCells
from store.limits import MICROSECONDS, Cells, Verdict
from store.redis import open_redis
from tests.conftest import MakeSettings


@pytest.fixture
async def limiter(make_settings: MakeSettings, redis_url: str) -> AsyncIterator[Limiter]:
    client = open_redis(redis_url)
    yield Limiter.of(Cells(client), make_settings(sign_in_limit_per_minute=10))
    await client.aclose()


def someone() -> str:
    return uuid.uuid4().hex


async def test_of_200_calls_at_once_exactly_the_limit_passes(limiter: Limiter) -> None:
    subject = someone()
    results = await asyncio.gather(*(limiter.allow("auth.nonce", subject) for _ in range(200)), return_exceptions=True)
    assert results.count(None) == 10
    refusals = [result for result in results if isinstance(result, RateLimited)]
    assert len(refusals) == 190
    assert {refusal.retry_after_s for refusal in refusals} <= {5, 6}


async def test_scopes_and_subjects_are_counted_apart(limiter: Limiter) -> None:
    first, second = someone(), someone()
    for _ in range(10):
        await limiter.allow("auth.nonce", first)
    await limiter.allow("auth.verify", first)
    await limiter.allow("auth.nonce", second)
    with pytest.raises(RateLimited):
        await limiter.allow("auth.nonce", first)


async def test_what_this_process_let_through_already_is_refused_without_redis(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = someone()
    for _ in range(10):
        await limiter.allow("auth.nonce", subject)
    asked: list[str] = []
    taken = Cells.take

    async def take(self: Cells, key: str, *, interval_us: int, burst: int) -> Verdict | None:
        asked.append(key)
        return await taken(self, key, interval_us=interval_us, burst=burst)

    monkeypatch.setattr(Cells, "take", take)
    for _ in range(3):
        with pytest.raises(RateLimited):
            await limiter.allow("auth.nonce", subject)
    assert not asked
    await limiter.allow("auth.nonce", someone())
    assert len(asked) == 1


async def test_the_limit_holds_on_while_redis_is_away(make_settings: MakeSettings, private_valkey: Valkey) -> None:
    client = open_redis(private_valkey.url)
    limiter = Limiter.of(Cells(client), make_settings())
    for _ in range(4):
        await limiter.allow("auth.nonce", "someone")
    private_valkey.stop()
    results = await asyncio.gather(
        *(limiter.allow("auth.nonce", "someone") for _ in range(200)), return_exceptions=True
    )
    assert results.count(None) == 6
    await client.aclose()


def test_headers_tell_policy_what_is_left_and_when_to_come_again(make_settings: MakeSettings, redis_url: str) -> None:
    limit = Limiter.of(Cells(open_redis(redis_url)), make_settings()).limit("auth.nonce")
    assert limit.headers(Verdict(True, 3, 0, 36 * MICROSECONDS + 1)) == {
        "RateLimit-Policy": '"auth.nonce";q=10;w=60',
        "RateLimit": '"auth.nonce";r=3;t=37',
    }
    assert limit.headers(Verdict(False, 0, 1, 60 * MICROSECONDS))["Retry-After"] == "1"


def test_a_process_forgets_the_cells_it_used_longest_ago() -> None:
    now = [0.0]
    cells = LocalCells(clock=lambda: now[0], size=2)

    def take(key: str) -> bool:
        return cells.take(key, interval_us=MICROSECONDS, burst=1).allowed

    assert [take("a"), take("b"), take("a"), take("c"), take("a"), take("b")] == [True, True, False, True, False, True]
    now[0] = 0.49
    assert not take("b")
    now[0] = 0.5
    assert take("b")
