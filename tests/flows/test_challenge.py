"""A challenge from its making to its end, with real processes, a real chain and official clients on two phones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from config.embedded.chain import Anvil
from store.postgres import Pool
from tests.flows.stack import Client, assert_exactly_once, stack
from tests.waiting import until
from watchers.devnet.listener import Happening, Listener
from watchers.devnet.people import USDC
from watchers.devnet.person import person

SHOP = person(95).address


def shown(listener: Listener) -> list[dict[str, Any]]:
    return [one.payload["challenge"] for one in listener.events("challenge_update")]


def kind_of(told: Happening) -> str:
    return str(told.payload["notification"]["kind"])


async def call(client: Client, method: str, url: str, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {client.token}"}
    async with client.made.session.request(method, url, json=body, headers=headers) as response:
        assert response.status < 300, await response.text()
        return await response.json()


async def test_spends_move_a_challenge_that_ends_and_settles_on_every_phone(
    tmp_path: Path, anvil: Anvil, database_url: str, redis_url: str, pool: Pool
) -> None:
    async with stack(tmp_path, anvil, database_url=database_url, redis_url=redis_url) as made:
        await made.watch()
        url, _ = await made.serve()
        made.start("jobs", "quick", challenge_settle_wait_hours="1")
        alice, bob = [await made.sign_in(await made.devnet.user(number), url) for number in (1, 2)]
        for each in (alice, bob):
            await call(each, "PUT", f"{url}/v1/budgets", {"scope": "total", "monthlyBudget": "300"})
        async with alice.listen(url) as hers, bob.listen(url) as his:
            ends = (datetime.now(UTC) + timedelta(days=3)).isoformat()
            wanted = {"name": "Less", "measure": "budget_kept", "visibility": "public", "endsAt": ends}
            id_ = (await call(alice, "POST", f"{url}/v1/challenges", wanted))["id"]
            await call(bob, "POST", f"{url}/v1/challenges/{id_}/join", {})
            await hers.until(lambda: shown(hers), what="the challenge on her phone")
            await his.until(lambda: shown(his), what="the challenge on his phone")
            assert (shown(his)[0]["joined"], shown(his)[0]["participantCount"]) == (True, 2)

            # Blocks have whole seconds: one of this second may be from before it began.
            await pool.execute("UPDATE challenges SET starts_at = starts_at - interval '1 minute'")
            await pool.execute("UPDATE challenge_participants SET joined_at = joined_at - interval '1 minute'")
            await made.devnet.open_bucket(alice.who, "food", limit=100 * USDC, amount=50 * USDC)
            await made.devnet.spend(alice.who, "food", 9 * USDC, SHOP)
            low = "SELECT min(score) FROM challenge_participants"

            async def is_measured() -> bool:
                return bool(await pool.fetchval(low) < 9_900)

            await until(is_measured, 20, what="her score with the spend")
            before = await pool.fetchval(low)
            await made.devnet.reorg(1)
            await made.devnet.mine(1)

            async def is_back() -> bool:
                return bool(await pool.fetchval(low) > before)

            await until(is_back, 20, what="her score without the spend")
            # it was three days ago, and neither was there
            await pool.execute("UPDATE challenges SET starts_at = now() - interval '3 days'")
            await pool.execute("UPDATE challenges SET ends_at = now() - interval '2 hours'")
            for listener in (hers, his):
                await listener.until(lambda one=listener: len(shown(one)) >= 3, what="ended and settled")  # type: ignore[misc]  # a default of the loop
                assert [each["state"] for each in shown(listener)] == ["running", "ended", "settled"]
                last = shown(listener)[-1]
                assert (last["myRank"], [each["rank"] for each in last["winners"]]) == (1, [1, 1])
                await listener.until(
                    lambda one=listener: [  # type: ignore[misc]  # a default of the loop
                        each for each in one.events("notification") if kind_of(each) == "challenge_settled"
                    ],
                    what="how it ended",
                )
                others = bob if listener is hers else alice
                assert others.who.address.lower() not in repr(shown(listener)).lower()
                assert_exactly_once(listener)
