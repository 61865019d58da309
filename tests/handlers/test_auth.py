from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from config import keys
from handlers import auth
from handlers.auth import Proof, RefreshRefused, RefreshReused, SignedIn, SignInRefused
from handlers.deps import Deps
from handlers.errors import Conflict, NotFound, Problem, TokenExpired, Unauthenticated
from realtime.siwe import parse, recover
from store import log, sessions
from store.audit import Caller
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime.wallets import Wallet
from tests.realtime.wiring import CHAINS, FakeClock, FakePublisher, wire

CALLER = Caller("203.0.113.7", "Phone/1.0")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, clock: FakeClock) -> Deps:
    return wire(pool, make_settings(), clock=clock)


async def check(text: str, signature: bytes, *, address: str, chain_id: int) -> bool:
    return recover(text.encode(), signature) == address


async def proof_of(deps: Deps, wallet: Wallet, **changes: Any) -> Proof:
    nonce = await auth.issue_nonce(deps)
    times = {"issued_at": deps.now(), "expiration_time": None}
    return signed(wallet, wallet.message(nonce.value, **{**times, **changes}))


def signed(wallet: Wallet, text: str) -> Proof:
    return Proof(text, parse(text), bytes.fromhex(wallet.sign(text)[2:]))


async def sign_in(deps: Deps, wallet: Wallet, **changes: Any) -> SignedIn:
    return await auth.sign_in(deps, check, await proof_of(deps, wallet, **changes), caller=CALLER)


async def actions(deps: Deps) -> list[str]:
    return [row["action"] for row in await deps.pool.fetch("SELECT action FROM audit_logs ORDER BY id")]


async def reasons(deps: Deps) -> list[str]:
    rows = await deps.pool.fetch("SELECT metadata FROM audit_logs WHERE action = 'sign_in_refused' ORDER BY id")
    return [row["metadata"]["reason"] for row in rows]


async def test_a_sign_in_opens_the_log_and_follows_the_wallet_once(deps: Deps, clock: FakeClock) -> None:
    wallet = Wallet()
    assert await log.heads(deps.pool, [wallet.address]) == {}
    first = await sign_in(deps, wallet)
    opened = await deps.pool.fetchval("SELECT opened_at FROM user_counters")
    clock.pass_(30)
    second = await sign_in(deps, wallet)
    assert first.user == second.user
    assert first.user.address == wallet.address
    assert await deps.pool.fetchval("SELECT opened_at FROM user_counters") == opened
    scopes = await deps.pool.fetch(
        "SELECT chain_id, opened_block FROM wallet_scopes WHERE user_address = $1", wallet.address
    )
    assert {row["chain_id"] for row in scopes} == set(CHAINS)
    assert {row["opened_block"] for row in scopes} == {None}
    assert (await log.heads(deps.pool, [wallet.address]))[wallet.address].seq == 0


async def test_tokens_are_stored_as_hashes_only(deps: Deps) -> None:
    got = await sign_in(deps, Wallet())
    assert got.access.startswith("exa_")
    assert got.refresh.startswith("exr_")
    for table in ("access_tokens", "refresh_tokens", "sessions", "audit_logs"):
        text = await deps.pool.fetchval(f"SELECT string_agg(t::text, ' ') FROM {table} AS t")
        assert got.access not in text
        assert got.refresh not in text


async def test_an_access_token_speaks_for_its_session_until_it_expires(deps: Deps, clock: FakeClock) -> None:
    wallet = Wallet()
    got = await sign_in(deps, wallet)
    identity = await auth.authenticate(deps, got.access)
    assert identity.user == wallet.address
    clock.pass_(deps.settings.access_token_ttl_s - 1)
    assert await auth.authenticate(deps, got.access) == identity
    clock.pass_(1)
    with pytest.raises(TokenExpired):
        await auth.authenticate(deps, got.access)


@pytest.mark.parametrize("token", ["", "exa_", "exa_" + "A" * 43, "exr_" + "A" * 43, "exa_" + "é" * 43, "x" * 10_000])
async def test_a_token_nobody_got_is_refused(deps: Deps, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await auth.authenticate(deps, token)


async def test_a_refresh_token_is_no_access_token_and_the_reverse(deps: Deps) -> None:
    got = await sign_in(deps, Wallet())
    with pytest.raises(Unauthenticated):
        await auth.authenticate(deps, got.refresh)
    with pytest.raises(RefreshRefused):
        await auth.refresh(deps, got.access, caller=CALLER)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"domain": "evil.example"}, "domain"),
        ({"domain": "localhost.evil.example"}, "domain"),
        ({"uri": "https://evil.example/"}, "uri"),
        ({"uri": "http://localhost@evil.example/"}, "uri"),
        ({"uri": "ipfs://localhost"}, "uri"),
        ({"scheme": "ftp"}, "scheme"),
        ({"chain_id": 999}, "chain_id"),
        ({"issued": 61}, "issued_at"),
        ({"issued": -300 - 61}, "issued_at"),
        ({"expires": 0}, "expired"),
        ({"begins": 1}, "not_before"),
        ({"address": "0x" + "11" * 20}, "signature"),
    ],
)
async def test_a_message_wrong_in_one_detail_is_refused_and_spends_its_nonce(
    deps: Deps, changes: dict[str, Any], reason: str
) -> None:
    shift = {"issued": "issued_at", "expires": "expiration_time", "begins": "not_before"}
    real = {shift.get(k, k): deps.now() + timedelta(seconds=v) if k in shift else v for k, v in changes.items()}
    proof = await proof_of(deps, Wallet(), **real)
    with pytest.raises(SignInRefused):
        await auth.sign_in(deps, check, proof, caller=CALLER)
    assert await reasons(deps) == [reason]
    assert await deps.pool.fetchval("SELECT count(*) FROM auth_nonces") == 0
    for table in ("sessions", "users", "user_counters"):
        assert await deps.pool.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_a_forged_signature_is_refused(deps: Deps) -> None:
    victim, thief = Wallet(), Wallet()
    text = victim.message((await auth.issue_nonce(deps)).value, issued_at=deps.now())
    forged = Proof(text, parse(text), bytes.fromhex(thief.sign(text)[2:]))
    with pytest.raises(SignInRefused):
        await auth.sign_in(deps, check, forged, caller=CALLER)
    entry = await deps.pool.fetchrow("SELECT user_id, ip_address::text AS ip, user_agent FROM audit_logs")
    assert entry is not None
    assert tuple(entry) == (victim.address, "203.0.113.7/32", "Phone/1.0")


async def test_a_replayed_sign_in_is_refused(deps: Deps) -> None:
    proof = await proof_of(deps, Wallet())
    await auth.sign_in(deps, check, proof, caller=CALLER)
    with pytest.raises(SignInRefused):
        await auth.sign_in(deps, check, proof, caller=CALLER)
    assert await reasons(deps) == ["nonce"]


async def test_a_nonce_of_ones_own_is_refused(deps: Deps) -> None:
    wallet = Wallet()
    with pytest.raises(SignInRefused):
        await auth.sign_in(deps, check, signed(wallet, wallet.message("a" * 16, issued_at=deps.now())), caller=CALLER)


async def test_a_nonce_past_its_life_is_refused(deps: Deps, clock: FakeClock) -> None:
    wallet = Wallet()
    nonce = await auth.issue_nonce(deps)
    clock.pass_(deps.settings.nonce_ttl_s)
    proof = signed(wallet, wallet.message(nonce.value, issued_at=clock.now, expiration_time=None))
    with pytest.raises(SignInRefused):
        await auth.sign_in(deps, check, proof, caller=CALLER)
    assert await reasons(deps) == ["nonce"]


async def warm(pool: Pool, size: int = 10) -> None:
    """Open connections beforehand: a race that waits for them is none."""
    opened = [await pool.acquire() for _ in range(size)]
    for conn in opened:
        await pool.release(conn)


async def test_a_hundred_sign_ins_racing_with_one_nonce_let_one_in(deps: Deps) -> None:
    nonce = (await auth.issue_nonce(deps)).value
    wallets = [Wallet() for _ in range(100)]
    proofs = [signed(w, w.message(nonce, issued_at=deps.now(), expiration_time=None)) for w in wallets]
    await warm(deps.pool)
    tries = [auth.sign_in(deps, check, proof, caller=CALLER) for proof in proofs]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, SignedIn) for result in results) == 1
    assert sum(isinstance(result, SignInRefused) for result in results) == 99
    assert await deps.pool.fetchval("SELECT count(*) FROM sessions") == 1
    assert (await actions(deps)).count("sign_in") == 1


async def test_one_users_sign_ins_at_once_all_work(deps: Deps) -> None:
    wallet = Wallet()
    got = await asyncio.gather(*(sign_in(deps, wallet) for _ in range(20)))
    assert len({tokens.access for tokens in got}) == 20
    assert await deps.pool.fetchval("SELECT count(*) FROM user_counters") == 1


async def test_refresh_gives_new_tokens_of_the_same_session(deps: Deps) -> None:
    first = await sign_in(deps, Wallet())
    second = await auth.refresh(deps, first.refresh, caller=CALLER)
    third = await auth.refresh(deps, second.refresh, caller=CALLER)
    ids = {(await auth.authenticate(deps, tokens.access)).session_id for tokens in (first, second, third)}
    assert len(ids) == 1
    assert len({first.refresh, second.refresh, third.refresh}) == 3
    assert (await actions(deps)) == ["sign_in", "refresh", "refresh"]


async def test_reuse_of_an_old_refresh_token_ends_the_family(deps: Deps) -> None:
    first = await sign_in(deps, Wallet())
    second = await auth.refresh(deps, first.refresh, caller=CALLER)
    with pytest.raises(RefreshReused):
        await auth.refresh(deps, first.refresh, caller=CALLER)
    for dead in (first.access, second.access):
        with pytest.raises(Unauthenticated):
            await auth.authenticate(deps, dead)
    with pytest.raises(RefreshRefused):
        await auth.refresh(deps, second.refresh, caller=CALLER)
    assert (await actions(deps)) == ["sign_in", "refresh", "refresh_reused", "refresh_refused"]
    assert isinstance(deps.publisher, FakePublisher)
    assert deps.publisher.woken == [keys.REVOCATIONS]


async def test_one_of_two_refreshes_at_once_wins_and_nothing_is_revoked(
    pool: Pool, make_settings: MakeSettings, clock: FakeClock
) -> None:
    def ticking() -> Any:
        clock.pass_(0.000_001)
        return clock.now

    deps = Deps(make_settings(), CHAINS, pool, FakePublisher(), ticking)
    got = await sign_in(deps, Wallet())
    await warm(pool)
    tries = [auth.refresh(deps, got.refresh, caller=CALLER) for _ in range(5)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    winners = [result for result in results if isinstance(result, SignedIn)]
    assert len(winners) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 4
    await auth.authenticate(deps, winners[0].access)
    await auth.refresh(deps, winners[0].refresh, caller=CALLER)


async def test_a_refresh_token_past_its_life_is_refused(deps: Deps, clock: FakeClock) -> None:
    got = await sign_in(deps, Wallet())
    clock.pass_(deps.settings.refresh_token_ttl_s)
    with pytest.raises(RefreshRefused):
        await auth.refresh(deps, got.refresh, caller=CALLER)


async def test_logout_ends_this_session_only(deps: Deps) -> None:
    wallet = Wallet()
    here, there = await sign_in(deps, wallet), await sign_in(deps, wallet)
    identity = await auth.authenticate(deps, here.access)
    await auth.log_out(deps, identity, caller=CALLER)
    with pytest.raises(Unauthenticated):
        await auth.authenticate(deps, here.access)
    with pytest.raises(RefreshRefused):
        await auth.refresh(deps, here.refresh, caller=CALLER)
    await auth.authenticate(deps, there.access)
    assert await sessions.revoked_since(deps.pool, deps.now() - timedelta(seconds=5)) == [identity.session_id]


async def test_every_session_can_be_ended_at_once(deps: Deps) -> None:
    wallet, other = Wallet(), Wallet()
    mine = [await sign_in(deps, wallet) for _ in range(3)]
    theirs = await sign_in(deps, other)
    await auth.end_sessions(deps, await auth.authenticate(deps, mine[0].access), caller=CALLER)
    for tokens in mine:
        with pytest.raises(Unauthenticated):
            await auth.authenticate(deps, tokens.access)
    await auth.authenticate(deps, theirs.access)


async def test_someone_elses_session_is_not_found_and_goes_on(deps: Deps) -> None:
    mine, theirs = await sign_in(deps, Wallet()), await sign_in(deps, Wallet())
    me, them = await auth.authenticate(deps, mine.access), await auth.authenticate(deps, theirs.access)
    for missing in (them.session_id, "0" * 32, "not an id", ""):
        with pytest.raises(NotFound):
            await auth.end_session(deps, me, missing, caller=CALLER)
    await auth.authenticate(deps, theirs.access)


async def test_sessions_are_listed_while_they_can_be_refreshed(deps: Deps, clock: FakeClock) -> None:
    wallet = Wallet()
    old = await sign_in(deps, wallet)
    clock.pass_(60)
    new = await sign_in(deps, wallet)
    me = await auth.authenticate(deps, new.access)
    listed = await auth.sessions_of(deps, me)
    assert listed[0].id == me.session_id
    assert [(session.ip_address, session.user_agent) for session in listed] == [("203.0.113.7", "Phone/1.0")] * 2
    await auth.end_session(deps, me, listed[1].id, caller=CALLER)
    assert [session.id for session in await auth.sessions_of(deps, me)] == [me.session_id]
    clock.pass_(deps.settings.refresh_token_ttl_s)
    assert await auth.sessions_of(deps, me) == []
    assert old


async def test_a_database_that_is_away_grants_nothing(deps: Deps) -> None:
    proof = await proof_of(deps, Wallet())
    await deps.pool.close()
    with pytest.raises(Exception) as raised:
        await auth.sign_in(deps, check, proof, caller=CALLER)
    assert not isinstance(raised.value, Problem)
