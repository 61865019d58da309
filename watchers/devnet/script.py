"""What happens in the demo, scene by scene: everyday life, a budget alert, a dropped connection, a reorg, evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from watchers.devnet.contracts import artifact
from watchers.devnet.failure import DemoFailed
from watchers.devnet.feed import Feed
from watchers.devnet.listener import WAIT_S, Happening, Listener
from watchers.devnet.people import USDC, Devnet, Payment, Person
from watchers.devnet.phone import Phone
from watchers.devnet.proof import Evidence, net_transactions
from watchers.devnet.rest import Rest

FOOD, TRAVEL, RENT = "Food & Dining", "Transportation", "Rent"
_LUNCHES = (450, 1280, 320, 990, 2105, 675, 1530, 240, 510, 1120, 380, 860, 1475, 295, 640, 925)  # cents
_BATCH = ((FOOD, 510), (TRAVEL, 275), (FOOD, 180), (TRAVEL, 90))  # bucket, cents
FUN, ENTERTAINMENT = "Cinema and concert tickets", "00000000-0000-4000-8000-000000000004"
"""A bucket that the local model takes for entertainment, whatever else is spent; and the category that it means."""
FUN_BUDGET, FUN_SPEND = 100, 81
"""Dollars: the spend crosses the edge of 80 % that every user is warned at, and no other."""
_FUN_MONEY = 300 * USDC  # in the bucket and its limit: far from an edge of the bucket's own
ALERT_S = 40.0
"""How long the alert and the push may take (s): the worker loads its model for the first spend it judges."""
STILL_S = 2.0
"""How long the log must stand still before it is compared (s): a worker categorizes a spend in less."""
_MISSED = 5  # spends while the client is away
_POLL_S = 0.2
_REORG_TRIES = 5
_MONEY_EVENTS = ("FundsDeposited", "SpentFromBucket", "BucketFunded", "BucketTransfer", "UnallocatedWithdraw")


@dataclass(slots=True)
class Play:
    """The viewer, whose feed is shown, with everything they act through; `replayed` and `wallets` grow as it goes."""

    devnet: Devnet
    viewer: Person
    friend: Person
    shop: Person
    rest: Rest
    client: Listener
    phone: Phone
    heads: Mapping[str, float]
    feed: Feed
    pace_s: float
    """Pause between two actions (s)."""
    replayed: set[int] = field(default_factory=set)
    wallets: list[str] = field(default_factory=list)

    @property
    def seq(self) -> int:
        """The newest position of the client."""
        durable = self.client.durable
        return int(durable[-1].payload["seq"]) if durable else int(self.start["seq"])

    @property
    def start(self) -> dict[str, Any]:
        """The first snapshot that the client was given."""
        return self.client.events("snapshot")[0].payload

    def told(self, tx: str, name: str = "new_transaction", *, since: int = 0) -> Happening | None:
        """The first event of a name about a transaction, from a position in the client's happenings on."""
        found = (one for one in self.client.events(name, since=since) if tx in _transaction_id(one))
        return next(found, None)

    async def mined(self, txs: Iterable[str]) -> None:
        """Wait until transactions are in blocks; raise DemoFailed when a contract refused one."""
        for tx in txs:
            if (await self.devnet.receipt(tx, timeout_s=WAIT_S))["status"] != "0x1":
                raise DemoFailed(f"the demo's own transaction {tx} reverted")


async def arrive(play: Play) -> None:
    """The client connects and is given a snapshot."""
    play.feed.heading(f"{play.viewer.address} connects")
    await play.client.until(lambda: play.client.events("snapshot"), what="the first snapshot")
    play.wallets.append(play.devnet.at.wallet)


async def live(play: Play) -> None:
    """Everyday life: buckets, a deposit, spends, a wallet of one's own, a delegate, a batch."""
    devnet, me, shop = play.devnet, play.viewer, play.shop.address
    play.feed.heading("everyday life: buckets, deposit, spends")
    await _paced(play, devnet.create_bucket(me, FOOD, 500 * USDC))
    await _paced(play, devnet.create_bucket(me, TRAVEL, 200 * USDC))
    await _paced(play, devnet.deposit(me, 2_000 * USDC))
    await _paced(play, devnet.fund(me, FOOD, 400 * USDC))
    await _paced(play, devnet.fund(me, TRAVEL, 150 * USDC))
    for cents in _LUNCHES:
        await _paced(play, devnet.spend(me, FOOD, cents * USDC // 100, shop))
    await _paced(play, devnet.move(me, FOOD, TRAVEL, 25 * USDC))
    await _own_wallet(play)
    await _delegate(play)
    play.feed.heading("four spends in one transaction")
    payments = [Payment(bucket, cents * USDC // 100, shop) for bucket, cents in _BATCH]
    tx = await devnet.batch_spend(me, payments)
    await play.mined([tx])
    await play.client.until(lambda: play.told(tx), what="the batch of spends")


async def reach_a_limit(play: Play) -> None:
    """A spend gets its category from the local model, crosses 80 % of that category's budget, and a phone tells."""
    play.feed.heading(f"a phone, and a budget of {FUN_BUDGET} USD for entertainment; {FUN_SPEND} are spent at once")
    await play.rest.register_device(play.phone.token)
    await play.rest.set_budget(ENTERTAINMENT, dollars=FUN_BUDGET)
    await play.mined(await play.devnet.open_bucket(play.viewer, FUN, limit=_FUN_MONEY, amount=_FUN_MONEY))
    position = len(play.client.happenings)
    # Not to the shop: what is known of it would name another category.
    tx = await play.devnet.spend(play.viewer, FUN, FUN_SPEND * USDC, play.friend.address)
    await play.mined([tx])
    categorized = await play.client.until(
        lambda: play.told(tx, "transaction_categorized", since=position), what="the spend's category", timeout_s=ALERT_S
    )
    alert = await play.client.until(lambda: _alert(play, categorized), what="the budget's alert", timeout_s=ALERT_S)
    key = alert.payload["id"]
    await play.client.until(lambda: _inbox(play, key), what="the alert in the inbox", timeout_s=ALERT_S)
    push = await play.phone.push_about(key, timeout_s=ALERT_S)
    play.feed.phone(push["notification"]["title"], push["notification"]["body"])


async def lose_connection(play: Play) -> None:
    """The connection drops, spends go on, the client comes back and gets what it missed."""
    play.feed.heading(f"the connection drops; {_MISSED} spends meanwhile")
    await _quiet(play)
    position = len(play.client.happenings)
    await play.client.command("cut hold")
    await play.client.until(lambda: _kinds(play, "disconnect", position), what="the disconnect")
    before = play.seq
    txs = [await play.devnet.spend(play.viewer, FOOD, (i + 1) * USDC, play.shop.address) for i in range(_MISSED)]
    await play.mined(txs)
    await _log_tells(play, txs, since=before)
    await play.client.command("back")
    connect = await play.client.until(lambda: _kinds(play, "connect", position), what="the reconnect")
    session = await play.client.until(lambda: play.client.events("session", since=position), what="the session")
    answer = session[0].payload
    if not (answer["recovered"] and connect[0].body["recovered"]):
        raise DemoFailed(f"the client was not recovered after the cut: {answer}, {connect[0].body}")
    if answer["replayed"] < _MISSED:
        raise DemoFailed(f"{_MISSED} spends were missed, {answer['replayed']} events were replayed")
    play.replayed.update(range(before + 1, before + 1 + answer["replayed"]))
    await play.client.until(lambda: play.seq >= max(play.replayed), what="the replayed events")


async def reorganise(play: Play) -> None:
    """A spend is told, its block is replaced without it, it is taken back; then it is included again and told again."""
    play.feed.heading("a spend is told, a reorg takes it back, another block includes it again")
    tx = await play.devnet.spend(play.viewer, FOOD, 7 * USDC, play.shop.address)
    await play.mined([tx])
    told = await play.client.until(lambda: play.told(tx), what="the spend before the reorg")
    position = len(play.client.happenings)
    await _drop(play, tx)
    taken = await play.client.until(
        lambda: play.told(tx, "transaction_reverted", since=position), what="the correction after the reorg"
    )
    if told.payload["id"] not in taken.payload["corrects"]:
        raise DemoFailed(f"the correction {taken.payload} does not name event {told.payload['id']}")
    await play.devnet.resend(tx)
    await play.mined([tx])
    again = await play.client.until(lambda: play.told(tx, since=position), what="the spend after its inclusion again")
    if again.payload["id"] == told.payload["id"]:
        raise DemoFailed(f"the spend came again under the event id {told.payload['id']} that was taken back")


async def evidence(play: Play) -> Evidence:
    """When all is quiet: what was received, and what REST and the chain say about it."""
    play.feed.heading("comparing with the log, a fresh snapshot and the chain")
    canonical = await _quiet(play)
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while True:
        await _still(play)
        log = await _log(play, after=play.start["seq"])
        pushes, fresh, received = await play.phone.got(), await play.rest.snapshot(), play.client.durable
        at_once = len(log) == fresh["seq"] - play.start["seq"] and play.seq == fresh["seq"]
        # A worker may yet have had something to say in between; after the deadline the proof tells what differs.
        if at_once or asyncio.get_running_loop().time() > deadline:
            break
    return Evidence(
        start=play.start,
        received=received,
        log=log,
        fresh=fresh,
        canonical=canonical,
        heads=play.heads,
        pushes=pushes,
        replayed=frozenset(play.replayed),
    )


async def _own_wallet(play: Play) -> None:
    devnet, me = play.devnet, play.viewer
    play.feed.heading("a wallet of one's own, made by the factory just now")
    await play.mined([await devnet.create_wallet(me)])
    wallet = await devnet.wallet_of(me)
    if wallet is None:
        raise DemoFailed("the factory made no wallet")
    play.wallets.append(wallet)
    txs = await devnet.open_bucket(me, RENT, limit=900 * USDC, amount=1_200 * USDC, wallet=wallet)
    txs += [await devnet.spend(me, RENT, 850 * USDC, play.shop.address, wallet=wallet)]
    await play.mined(txs)
    await play.client.until(lambda: play.told(txs[-1]), what="the rent from the wallet of one's own")


async def _delegate(play: Play) -> None:
    devnet, me = play.devnet, play.viewer
    play.feed.heading(f"a delegate, {play.friend.address}, spends from {FOOD}")
    await play.mined([await devnet.add_delegate(me, FOOD, play.friend)])
    tx = await devnet.spend(me, FOOD, 9 * USDC, play.shop.address, delegate=play.friend)
    await play.mined([tx])
    await play.client.until(lambda: play.told(tx), what="the delegate's spend")


async def _paced(play: Play, action: Awaitable[str]) -> None:
    """Act and let a moment pass, so that not all actions share a block."""
    await action
    await asyncio.sleep(play.pace_s)


async def _drop(play: Play, tx: str) -> None:
    """Replace the newest blocks until none holds the transaction; a new block may come between look and reorg."""
    for _ in range(_REORG_TRIES):
        found = await play.devnet.find_receipt(tx)
        if found is None:
            return
        await play.devnet.reorg(await play.devnet.block_number() - int(found["blockNumber"], 16) + 1)
    raise DemoFailed(f"transaction {tx} survived {_REORG_TRIES} reorgs")


async def _quiet(play: Play) -> frozenset[str]:
    """Wait until the client has told everything that the chain holds, and stands where the log stands.

    Gives the canonical transaction ids. After the deadline it gives up waiting: the proof then says what is missing.
    """
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while True:
        canonical = await canonical_ids(play.devnet, play.viewer, play.wallets)
        told = canonical <= set(+net_transactions(play.client.durable))
        late = asyncio.get_running_loop().time() > deadline
        if late or (told and (await play.rest.snapshot())["seq"] == play.seq):
            return canonical
        await asyncio.sleep(_POLL_S)


async def _still(play: Play) -> None:
    """Wait until nothing was added to the log for a while; the deadline is that of who compares."""
    clock = asyncio.get_running_loop().time
    seq, since, deadline = -1, clock(), clock() + WAIT_S
    while clock() - since < STILL_S and clock() < deadline:
        now = (await play.rest.snapshot())["seq"]
        if now != seq:
            seq, since = now, clock()
        await asyncio.sleep(_POLL_S)


async def _log(play: Play, *, after: int) -> list[dict[str, Any]]:
    return await play.rest.events(epoch=play.client.events("session")[0].payload["epoch"], after=after)


async def _log_tells(play: Play, txs: Iterable[str], *, since: int) -> None:
    """Wait until the log holds the spends; workers may add to it between them."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    missing = set(txs)
    while True:
        told = [
            one["payload"]["transaction"] for one in await _log(play, after=since) if "transaction" in one["payload"]
        ]
        missing -= {tx for tx in missing for one in told if tx in one["id"]}
        if not missing:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise DemoFailed(f"the log did not tell {sorted(missing)} while the client was away")
        await asyncio.sleep(_POLL_S)


async def canonical_ids(devnet: Devnet, who: Person, wallets: Sequence[str]) -> frozenset[str]:
    """Transaction ids of a person's money events in the blocks that the chain now has."""
    wallet = artifact("BudgetWallet")
    topics = [[wallet.topic(name) for name in _MONEY_EVENTS], "0x" + who.address[2:].rjust(64, "0")]
    where = {"fromBlock": hex(devnet.at.first_block), "toBlock": "latest", "address": list(wallets), "topics": topics}
    logs = await devnet.rpc_call("eth_getLogs", where)
    hashes = sorted({log["transactionHash"] for log in logs})
    receipts = await devnet.rpc_batch([("eth_getTransactionReceipt", (tx,)) for tx in hashes])
    # A reorg between the two calls leaves no receipt; such a log is not canonical any more.
    first = {r["transactionHash"]: int(r["logs"][0]["logIndex"], 16) for r in receipts if r is not None}
    places = [(log["transactionHash"], int(log["logIndex"], 16)) for log in logs if log["transactionHash"] in first]
    return frozenset(f"{devnet.at.chain_id}:{tx}:{index - first[tx]}" for tx, index in places)


def _alert(play: Play, cause: Happening) -> Happening | None:
    alerts = play.client.events("budget_alert")
    return next((one for one in alerts if cause.payload["id"] in one.payload["causes"]), None)


def _inbox(play: Play, event_id: str) -> Happening | None:
    told = play.client.events("notification")
    return next((one for one in told if one.payload["notification"]["eventId"] == event_id), None)


def _kinds(play: Play, kind: str, since: int) -> list[Happening]:
    return [one for one in play.client.happenings[since:] if one.kind == kind]


def _transaction_id(one: Happening) -> str:
    payload = one.payload
    return str(payload["transactionId"] if "transactionId" in payload else payload["transaction"]["id"])
