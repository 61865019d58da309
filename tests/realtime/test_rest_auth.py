from __future__ import annotations

import asyncio
import itertools
import uuid
from datetime import timedelta
from typing import Any

import pytest

from config import keys
from handlers.deps import Deps
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime.served import Client, Got, serving
from tests.realtime.wallets import Wallet
from tests.realtime.wiring import FakeClock, FakePublisher, busy, wire


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings, clock: FakeClock) -> Deps:
    return wire(pool, busy(make_settings, trusted_proxies="127.0.0.1/32"), clock=clock)


def code(got: Got) -> tuple[int, str]:
    assert got.headers["Content-Type"] == "application/problem+json"
    assert got.json["status"] == got.status
    assert got.json["requestId"] == got.headers["X-Request-Id"]
    return got.status, got.json["code"]


async def verify(anyone: Client, wallet: Wallet, **changes: Any) -> Got:
    nonce = (await anyone.post("/v1/auth/nonce")).json["nonce"]
    text = wallet.message(nonce, **changes)
    return await anyone.post("/v1/auth/verify", {"message": text, "signature": wallet.sign(text)})


async def test_a_wallet_signs_in_and_reads_its_profile(anyone: Client, deps: Deps) -> None:
    wallet = Wallet()
    got = await verify(anyone, wallet)
    assert got.status == 200
    assert got.headers["Cache-Control"] == "no-store"
    assert set(got.json) == {"accessToken", "refreshToken", "expiresIn", "user"}
    assert got.json["expiresIn"] == deps.settings.access_token_ttl_s
    me = Client(anyone.session, anyone.base, got.json["accessToken"])
    assert got.json["user"].items() <= (await me.get("/v1/me")).json.items()
    assert got.json["user"]["address"] == wallet.address


async def test_a_sign_in_is_noted_with_the_address_the_proxy_saw(anyone: Client) -> None:
    wallet = Wallet()
    nonce = (await anyone.post("/v1/auth/nonce")).json["nonce"]
    text = wallet.message(nonce)
    headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9", "User-Agent": "Phone/2"}
    body = {"message": text, "signature": wallet.sign(text)}
    got = await anyone.post("/v1/auth/verify", body, headers=headers)
    me = Client(anyone.session, anyone.base, got.json["accessToken"])
    [entry] = (await me.get("/v1/me/audit")).json["data"]
    assert (entry["action"], entry["ipAddress"], entry["userAgent"]) == ("sign_in", "203.0.113.9", "Phone/2")


async def test_forged_and_replayed_sign_ins_are_refused(anyone: Client) -> None:
    wallet, thief = Wallet(), Wallet()
    nonce = (await anyone.post("/v1/auth/nonce")).json["nonce"]
    text = wallet.message(nonce)
    forged = await anyone.post("/v1/auth/verify", {"message": text, "signature": thief.sign(text)})
    assert code(forged) == (401, "sign_in_refused")
    assert forged.headers["WWW-Authenticate"] == "Bearer"
    burnt = await anyone.post("/v1/auth/verify", {"message": text, "signature": wallet.sign(text)})
    assert code(burnt) == (401, "sign_in_refused")
    nonce = (await anyone.post("/v1/auth/nonce")).json["nonce"]
    body = {"message": wallet.message(nonce), "signature": wallet.sign(wallet.message(nonce))}
    text = wallet.message(nonce)
    body = {"message": text, "signature": wallet.sign(text)}
    assert (await anyone.post("/v1/auth/verify", body)).status == 200
    assert code(await anyone.post("/v1/auth/verify", body)) == (401, "sign_in_refused")


async def test_a_hundred_sign_ins_racing_with_one_nonce_let_one_in(anyone: Client) -> None:
    wallet = Wallet()
    text = wallet.message((await anyone.post("/v1/auth/nonce")).json["nonce"])
    body = {"message": text, "signature": wallet.sign(text)}
    results = await asyncio.gather(*(anyone.post("/v1/auth/verify", body) for _ in range(100)))
    statuses = [got.status for got in results]
    assert statuses.count(200) == 1
    assert statuses.count(401) == 99


async def test_a_malformed_sign_in_names_what_is_wrong(anyone: Client) -> None:
    bodies: list[tuple[Any, str]] = [
        ({"message": "hello", "signature": "0x00"}, "/message"),
        ({"message": "x" * 5000, "signature": "0x00"}, "/message"),
        ({"message": "hello"}, "/signature"),
        ({"message": "hello", "signature": "00"}, "/signature"),
        ({"message": "hello", "signature": "0x0"}, "/signature"),
        ({"message": "hello", "signature": 5}, "/signature"),
        ({"message": "hello", "signature": "0x00", "admin/~": True}, "/admin~1~0"),
        ([], ""),
    ]
    for body, pointer in bodies:
        got = await anyone.post("/v1/auth/verify", body)
        assert code(got) == (400, "invalid_request")
        assert pointer in [error["pointer"] for error in got.json["errors"]]


async def test_refresh_rotates_and_reuse_ends_everything(anyone: Client, deps: Deps) -> None:
    me = await anyone.signed_in()
    rotated = await anyone.post("/v1/auth/refresh", {"refreshToken": me.refresh})
    assert rotated.status == 200
    newer = Client(anyone.session, anyone.base, rotated.json["accessToken"])
    assert (await newer.get("/v1/me")).status == 200
    assert code(await anyone.post("/v1/auth/refresh", {"refreshToken": me.refresh})) == (401, "refresh_reused")
    assert code(await newer.get("/v1/me")) == (401, "unauthenticated")
    assert code(await me.get("/v1/me")) == (401, "unauthenticated")
    again = await anyone.post("/v1/auth/refresh", {"refreshToken": rotated.json["refreshToken"]})
    assert code(again) == (401, "refresh_refused")
    assert isinstance(deps.publisher, FakePublisher)
    assert deps.publisher.woken == [keys.REVOCATIONS]


async def test_an_expired_access_token_says_that_it_expired(anyone: Client, deps: Deps, clock: FakeClock) -> None:
    me = await anyone.signed_in()
    assert (await me.get("/v1/me")).status == 200
    clock.pass_(deps.settings.access_token_ttl_s)
    assert code(await me.get("/v1/me")) == (401, "token_expired")
    got = await anyone.post("/v1/auth/refresh", {"refreshToken": me.refresh})
    assert got.status == 200


async def test_without_a_good_token_nothing_is_told(anyone: Client) -> None:
    token = "exa_" + "A" * 43
    headers = ["", "Bearer", "Bearer ", "Basic abc", "Bearer nonsense", f"bearer {token}", token, f"Bearer {token} x"]
    paths = ["/v1/me", "/v1/snapshot", "/v1/events", "/v1/transactions", "/v1/buckets", "/v1/auth/sessions"]
    for header, path in itertools.product(headers, paths):
        got = await anyone.get(path, headers={"Authorization": header} if header else {})
        assert code(got) == (401, "unauthenticated")
        assert got.headers["WWW-Authenticate"] == "Bearer"


async def test_a_token_in_the_query_string_is_not_taken(anyone: Client) -> None:
    me = await anyone.signed_in()
    got = await anyone.get("/v1/me", params={"token": me.token})
    assert code(got) == (401, "unauthenticated")


async def test_logout_ends_this_session_at_once(anyone: Client) -> None:
    wallet = Wallet()
    here, there = await anyone.signed_in(wallet), await anyone.signed_in(wallet)
    assert (await here.get("/v1/me")).status == 200
    got = await here.post("/v1/auth/logout")
    assert (got.status, got.body) == (204, b"")
    assert code(await here.get("/v1/me")) == (401, "unauthenticated")
    assert (await there.get("/v1/me")).status == 200


async def test_sessions_are_listed_and_ended(anyone: Client) -> None:
    wallet = Wallet()
    mine = [await anyone.signed_in(wallet) for _ in range(3)]
    other = await anyone.signed_in()
    listed = (await mine[0].get("/v1/auth/sessions")).json["data"]
    assert len(listed) == 3
    assert [session["current"] for session in listed].count(True) == 1
    victim = next(session["id"] for session in listed if not session["current"])
    assert code(await other.call("DELETE", f"/v1/auth/sessions/{victim}")) == (404, "not_found")
    assert (await mine[0].call("DELETE", f"/v1/auth/sessions/{victim}")).status == 204
    assert code(await mine[0].call("DELETE", f"/v1/auth/sessions/{victim}")) == (404, "not_found")
    statuses = [(await client.get("/v1/me")).status for client in mine]
    assert sorted(statuses) == [200, 200, 401]
    assert (await mine[0].call("DELETE", "/v1/auth/sessions")).status == 204
    assert [(await client.get("/v1/me")).status for client in mine] == [401, 401, 401]
    assert (await other.get("/v1/me")).status == 200


async def test_the_audit_log_is_ones_own_and_pages(anyone: Client) -> None:
    me, other = await anyone.signed_in(), await anyone.signed_in()
    for _ in range(3):
        await me.call("DELETE", f"/v1/auth/sessions/{uuid.uuid4()}")
    token = me.refresh
    for _ in range(3):
        token = (await anyone.post("/v1/auth/refresh", {"refreshToken": token})).json["refreshToken"]
    actions, path = [], "/v1/me/audit?limit=3"
    while path:
        got = await me.get(path)
        actions += [entry["action"] for entry in got.json["data"]]
        path = got.headers["Link"].split(">")[0][1:] if got.json["hasMore"] else ""
    assert actions == ["refresh", "refresh", "refresh", "sign_in"]
    assert [entry["action"] for entry in (await other.get("/v1/me/audit")).json["data"]] == ["sign_in"]


async def test_ten_nonces_a_minute_and_address(pool: Pool, make_settings: MakeSettings) -> None:
    deps = wire(pool, make_settings(trusted_proxies="127.0.0.1/32"))
    address = f"2001:db8:{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}::"
    async with serving(deps) as anyone:

        async def ask(host: int) -> Got:
            # Another address of the same network each time: it is one customer.
            return await anyone.post("/v1/auth/nonce", headers={"X-Forwarded-For": f"{address}{host:x}"})

        results = await asyncio.gather(*(ask(host) for host in range(1, 201)))
        elsewhere = await anyone.post("/v1/auth/nonce", headers={"X-Forwarded-For": "2001:db8:ffff:ffff::1"})
    assert [got.status for got in results].count(200) == 10
    assert elsewhere.status == 200
    refused = next(got for got in results if got.status == 429)
    assert code(refused) == (429, "rate_limited")
    assert int(refused.headers["Retry-After"]) in range(1, 7)
    assert refused.headers["RateLimit-Policy"] == '"auth.nonce";q=10;w=60'
    assert refused.headers["RateLimit"].startswith('"auth.nonce";r=0;t=')


async def test_people_behind_one_address_do_not_share_their_refreshes(pool: Pool, make_settings: MakeSettings) -> None:
    settings = busy(make_settings, sign_in_limit_per_minute=2)
    deps = wire(pool, settings)
    headers = {"X-Forwarded-For": "198.51.100.1"}
    async with serving(wire(pool, busy(make_settings))) as free:
        people = [await free.signed_in() for _ in range(3)]
    async with serving(deps) as anyone:
        for person in people:
            token = person.refresh
            for _ in range(2):
                got = await anyone.post("/v1/auth/refresh", {"refreshToken": token}, headers=headers)
                assert got.status == 200
                token = got.json["refreshToken"]
            got = await anyone.post("/v1/auth/refresh", {"refreshToken": token}, headers=headers)
            assert code(got) == (429, "rate_limited")


async def test_a_message_may_be_a_little_early_and_not_too_late(anyone: Client, clock: FakeClock) -> None:
    ahead = await verify(anyone, Wallet(), issued_at=clock.now + timedelta(seconds=59), expiration_time=None)
    assert ahead.status == 200
    late = await verify(anyone, Wallet(), issued_at=clock.now - timedelta(seconds=400), expiration_time=None)
    assert code(late) == (401, "sign_in_refused")
