"""What a stranger may not do, on the running product: refused with a problem, and nothing leaks."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from config.embedded.chain import Anvil
from tests.flows.stack import DOMAIN, Stack, stack
from tests.waiting import until
from watchers.devnet.listener import Happening, Listener
from watchers.devnet.people import USDC
from watchers.devnet.person import Person, person, sign_in_message

ALICE, MALLORY = person(1), person(2)
RACERS = 100


async def post(made: Stack, url: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> tuple[int, Any]:
    async with made.session.post(url + path, json=body, headers=headers) as response:
        return response.status, await response.json()


async def signed(made: Stack, url: str, who: Person, **message: Any) -> dict[str, str]:
    _, nonce = await post(made, url, "/v1/auth/nonce")
    facts = {"nonce": nonce["nonce"], "domain": DOMAIN, "uri": f"http://{DOMAIN}", "chain_id": made.chain_id}
    text = sign_in_message(who, **{**facts, **message})
    return {"message": text, "signature": who.sign(text)}


async def answer(listener: Listener, event: str, *args: Any) -> Any:
    before = len(listener.happenings)
    await listener.command("emit " + orjson.dumps({"event": event, "args": list(args)}).decode())
    acks = await listener.until(
        lambda: [one for one in listener.happenings[before:] if one.kind == "ack"], what=f"an answer to {event}"
    )
    return acks[0].body["answer"]


def refusals(listener: Listener) -> list[Happening]:
    return [one for one in listener.happenings if one.kind == "connect_error"]


async def test_strangers_are_refused_and_learn_nothing(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> None:
    async with stack(tmp_path, anvil, database_url=database_url, redis_url=redis_url) as made:
        await made.watch()
        url, _ = await made.serve(origins='["https://app.example"]')
        await made.devnet.users(2)
        alice, mallory = await made.sign_in(ALICE, url), await made.sign_in(MALLORY, url)

        # Another user's room, in any spelling, and another user's things.
        async with alice.listen(url) as hers, mallory.listen(url) as his:
            for room in ("join_user_room", "subscribe_notifications"):
                refused = await answer(his, room, ALICE.checksum)
                assert (refused["ok"], refused["error"]["code"]) == (False, "forbidden")
                assert (await answer(his, room, MALLORY.checksum))["ok"]
            await made.devnet.open_bucket(ALICE, "secret", amount=USDC)
            await alice.settled(hers)
            assert {one.name for one in his.durable} <= {"resync"}  # of his own address
            assert ALICE.address not in orjson.dumps([one.body for one in his.happenings]).decode()
            key = hers.events("new_transaction")[0].payload["transaction"]["id"]
        for token, status in ((alice.token, 200), (mallory.token, 404)):
            async with made.session.get(
                f"{url}/v1/transactions/{key}", headers={"Authorization": f"Bearer {token}"}
            ) as response:
                assert response.status == status

        # A hundred sign-ins with one nonce: one wins. The same message again, or signed by another: refused.
        message = await signed(made, url, ALICE)
        answers = await asyncio.gather(*(post(made, url, "/v1/auth/verify", message) for _ in range(RACERS)))
        assert Counter(status for status, _ in answers) == {200: 1, 401: RACERS - 1}
        assert (await post(made, url, "/v1/auth/verify", message))[0] == 401
        forged = await signed(made, url, ALICE)
        forged["signature"] = MALLORY.sign(forged["message"])
        assert (await post(made, url, "/v1/auth/verify", forged))[0] == 401
        elsewhere = await signed(made, url, ALICE, domain="evil.example", uri="https://evil.example")
        assert (await post(made, url, "/v1/auth/verify", elsewhere))[0] in (400, 401)

        # A page of an origin that is not on the list, over both transports.
        for transport in ("polling", "websocket"):
            async with made.session.get(
                f"{url}/socket.io/?EIO=4&transport={transport}", headers={"Origin": "https://evil.example"}
            ) as response:
                assert (response.status, (await response.json())["code"]) == (403, "origin_not_allowed")

        # A token that is revoked closes its socket; no token, or a made-up one, opens none.
        async with mallory.listen(url) as his:
            headers = {"Authorization": f"Bearer {mallory.token}"}
            async with made.session.post(url + "/v1/auth/logout", headers=headers) as response:
                assert response.status in (200, 204)
            await his.until(lambda: [one for one in his.happenings if one.kind == "disconnect"], what="the close")
        for token in (mallory.token, "made-up", ""):
            async with Listener(url, token) as nobody:
                errors = await nobody.until(partial(refusals, nobody), what="a refusal")
                assert errors[0].body["problem"]["status"] == 401


async def test_expired_token_is_refused_and_closes_its_socket(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str
) -> None:
    async with stack(tmp_path, anvil, database_url=database_url, redis_url=redis_url) as made:
        await made.watch()
        url, _ = await made.serve(access_token_ttl_s="10")
        client = await made.sign_in(ALICE, url)
        async with client.listen(url) as listener:
            await listener.until(
                lambda: [one for one in listener.happenings if one.kind == "disconnect"], what="the close", timeout_s=15
            )

        async def refused() -> bool:
            headers = {"Authorization": f"Bearer {client.token}"}
            async with made.session.get(url + "/v1/snapshot", headers=headers) as response:
                return response.status == 401 and (await response.json())["code"] == "token_expired"

        await until(refused, what="an expired token refused")
