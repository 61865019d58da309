from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from handlers import auth
from handlers.auth import SignedIn
from handlers.deps import Deps
from handlers.errors import TokenExpired, Unauthenticated, Unavailable
from realtime import auth as tokens_module
from realtime.auth import CACHE_S, Tokens
from store.audit import Caller
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.handlers.test_auth import sign_in
from tests.realtime.wallets import Wallet
from tests.realtime.wiring import FakeClock, busy, wire


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, clock: FakeClock) -> Deps:
    return wire(pool, busy(make_settings), clock=clock)


@pytest.fixture
async def signed_in(deps: Deps) -> SignedIn:
    return await sign_in(deps, Wallet())


async def end(deps: Deps, signed_in: SignedIn) -> None:
    await auth.log_out(deps, await auth.authenticate(deps, signed_in.access), caller=Caller())


async def test_a_verified_token_is_believed_for_a_second_and_no_longer(deps: Deps, signed_in: SignedIn) -> None:
    now = [0.0]
    tokens = Tokens(deps, clock=lambda: now[0])
    identity = await tokens.verify(signed_in.access)
    await end(deps, signed_in)
    now[0] = CACHE_S - 0.001
    assert await tokens.verify(signed_in.access) == identity
    now[0] = CACHE_S
    with pytest.raises(Unauthenticated):
        await tokens.verify(signed_in.access)
    with pytest.raises(Unauthenticated):
        await tokens.verify(signed_in.access)


async def test_a_revocation_here_is_seen_at_once(deps: Deps, signed_in: SignedIn) -> None:
    tokens = Tokens(deps)
    await tokens.verify(signed_in.access)
    await end(deps, signed_in)
    tokens.forget()
    with pytest.raises(Unauthenticated):
        await tokens.verify(signed_in.access)


async def test_a_remembered_token_expires_on_time(deps: Deps, signed_in: SignedIn, clock: FakeClock) -> None:
    tokens = Tokens(deps, clock=lambda: 0.0)
    await tokens.verify(signed_in.access)
    clock.pass_(deps.settings.access_token_ttl_s)
    with pytest.raises(TokenExpired):
        await tokens.verify(signed_in.access)


async def test_refused_tokens_are_not_remembered_and_memory_is_bounded(
    deps: Deps, signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "CACHE_SIZE", 2)
    tokens = Tokens(deps)
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await tokens.verify("exa_" + "x" * 43)
    others = [await sign_in(deps, Wallet()) for _ in range(3)]
    for each in (signed_in, *others):
        await tokens.verify(each.access)
    assert len(tokens._known) == 2


async def test_a_database_that_is_away_is_no_bad_token(deps: Deps, signed_in: SignedIn) -> None:
    tokens = Tokens(deps)
    await deps.pool.close()
    with pytest.raises(Unavailable):
        await tokens.verify(signed_in.access)


async def test_a_hundred_calls_at_once_see_one_identity(deps: Deps, signed_in: SignedIn) -> None:
    tokens = Tokens(deps)
    found = await asyncio.gather(*(tokens.verify(signed_in.access) for _ in range(100)))
    assert len(set(found)) == 1


async def test_revocations_are_read_from_the_database(deps: Deps, signed_in: SignedIn) -> None:
    tokens = Tokens(deps)
    identity = await tokens.verify(signed_in.access)
    began = datetime.now(UTC)
    assert await tokens.revoked_since(began) == []
    await end(deps, signed_in)
    assert await tokens.revoked_since(began) == [identity.session_id]
    assert await tokens.revoked_since(began + timedelta(minutes=1)) == []
