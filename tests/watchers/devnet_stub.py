"""A stand-in for the whole product, for tests of the demo alone: one user, kept in memory, refigured at every block.

Every spend from the demo's entertainment bucket is categorized, alerted and pushed, as if it crossed an edge.
It speaks just as much of the contract as the demo's client asks for: sign-in, snapshot, log, and Socket.IO over a
websocket with connection state recovery.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import WSMsgType, web
from eth_abi.abi import decode
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.abi import collapse_if_tuple

from watchers.devnet.contracts import artifact
from watchers.devnet.node import Node, NodeError
from watchers.devnet.script import ENTERTAINMENT, FUN

EPOCH = "stub"
POLL_S = 0.02
TYPES = {
    "FundsDeposited": "deposit",
    "BucketFunded": "bucket_funding",
    "SpentFromBucket": "spend",
    "BucketTransfer": "bucket_transfer",
}


@dataclass
class Books:
    """Balances by (scope, wallet, bucket, token) and buckets by id."""

    balances: dict[tuple[str, str, str | None, str], int] = field(default_factory=dict)
    buckets: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, place: tuple[str, str, str | None, str], amount: int) -> None:
        self.balances[place] = self.balances.get(place, 0) + amount


@dataclass
class Applied:
    """What one event of the chain did: the books before it, and the id of the client's event."""

    transaction_id: str
    event_id: str
    before: Books
    bucket_id: str | None


@dataclass
class Stub:
    node: Node
    at: Any
    sabotage: Callable[[str, dict[str, Any]], int] = lambda _event, _payload: 1
    """How often an event is sent to the socket: 0 loses it, 2 doubles it."""
    pushes_per_alert: int = 1
    late: bool = False
    """Whether a job adds to the log while the evidence is gathered."""
    user: str = ""
    phone: str = ""
    unread: int = 0
    pushes: list[dict[str, Any]] = field(default_factory=list)
    books: Books = field(default_factory=Books)
    log: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    blocks: list[tuple[str, list[Applied]]] = field(default_factory=list)
    sockets: set[web.WebSocketResponse] = field(default_factory=set)

    # ---- following the chain

    async def follow(self) -> None:
        while True:
            with contextlib.suppress(NodeError):  # a reorg between two of its calls
                await self.step()
            await asyncio.sleep(POLL_S)

    async def step(self) -> None:
        height = await self.node.block_number()
        while self.blocks and await self.hash_of(len(self.blocks) - 1) != self.blocks[-1][0]:
            for applied in reversed(self.blocks.pop()[1]):
                await self.take_back(applied)
        for number in range(len(self.blocks), height + 1):
            block = await self.hash_of(number)
            logs = await self.node.rpc_call("eth_getLogs", {"blockHash": block}) if number else []
            first: dict[str, int] = {}
            done: list[Applied] = []
            for log in logs:
                index = int(log["logIndex"], 16)
                n = index - first.setdefault(log["transactionHash"], index)
                done += await self.on_log(log, n)
            self.blocks.append((block, done))

    async def hash_of(self, number: int) -> str:
        found = await self.node.rpc_call("eth_getBlockByNumber", hex(number), False)
        if found is None:
            return "none"
        return str(found["hash"])

    async def on_log(self, log: dict[str, Any], n: int) -> list[Applied]:
        wallet = artifact("BudgetWallet")
        entry = next(
            (e for e in wallet.abi if e["type"] == "event" and wallet.topic(e["name"]) == log["topics"][0]), None
        )
        if entry is None or len(log["topics"]) < 2 or log["topics"][1][-40:] != self.user[2:]:
            return []
        plain = [p for p in entry["inputs"] if not p["indexed"]]
        values = decode([collapse_if_tuple(p) for p in plain], bytes.fromhex(log["data"][2:]))
        said = dict(zip((p["name"] for p in plain), values, strict=True))
        before = copy.deepcopy(self.books)
        bucket = self.apply(entry["name"], said, log["address"])
        key = f"{self.at.chain_id}:{log['transactionHash']}:{n}"
        event_id = f"{key}@{log['blockHash']}"
        if entry["name"] in TYPES:
            moved = self.changes(before)
            amount = self.amount(said["token"], said["amount"])
            transaction = {"id": key, "blockHash": log["blockHash"], "type": TYPES[entry["name"]], "amount": amount}
            transaction |= {"direction": "out", "bucket": said.get("bucketName")}
            impact = self.impact(bucket, before) if entry["name"] == "SpentFromBucket" else []
            body = {"transaction": transaction, "updatedBalances": moved, "budgetImpact": impact}
            await self.append("new_transaction", event_id, body)
            if said.get("bucketName") == FUN and entry["name"] == "SpentFromBucket":
                await self.alert(key, event_id)
        elif bucket is not None:
            await self.append("bucket_update", event_id, {"bucket": self.bucket(bucket)})
        return [Applied(key if entry["name"] in TYPES else "", event_id, before, bucket)]

    async def alert(self, transaction_id: str, event_id: str) -> None:
        """What the category of a spend leads to."""
        category = {"id": ENTERTAINMENT, "name": "Entertainment"}
        given = {"category": category, "confidence": "0.99", "source": "model", "budgetImpact": []}
        await self.append("transaction_categorized", f"c {event_id}", {"transactionId": transaction_id, **given})
        alert = {"causes": [f"c {event_id}"], "message": "You have spent 80 %."}
        await self.append("budget_alert", f"a {event_id}", alert)
        self.unread += 1
        notice = {"notification": {"eventId": f"a {event_id}", "title": "80 %"}, "unreadCount": self.unread}
        await self.append("notification", f"n {event_id}", notice)
        push = {
            "token": self.phone,
            "notification": {"title": "80 %", "body": ""},
            "data": {"event_id": f"a {event_id}"},
        }
        self.pushes += [{**push, "android": {"collapse_key": "k", "priority": "high"}}] * self.pushes_per_alert

    async def take_back(self, applied: Applied) -> None:
        before, self.books = self.books, applied.before
        body: dict[str, Any] = {"corrects": [applied.event_id]}
        if applied.transaction_id:
            body |= {"transactionId": applied.transaction_id, "reason": "reorg"}
            body |= {"updatedBalances": self.changes(before), "budgetImpact": self.impact(applied.bucket_id, before)}
            await self.append("transaction_reverted", f"undo {applied.event_id}", body)
        elif applied.bucket_id in self.books.buckets:
            body |= {"bucket": self.bucket(str(applied.bucket_id))}
            await self.append("bucket_update", f"undo {applied.event_id}", body)
        elif applied.bucket_id:
            body |= {"bucket": {"id": applied.bucket_id}, "removed": True}
            await self.append("bucket_update", f"undo {applied.event_id}", body)

    def apply(self, name: str, said: dict[str, Any], wallet: str) -> str | None:
        """Change the books; give the id of the bucket concerned."""
        label = said.get("bucketName") or said.get("fromBucket")
        bucket = f"{wallet}:{label}" if label else None
        amount, token = said.get("amount", 0), said.get("token", "")
        match name:
            case "BucketCreated":
                self.books.buckets[str(bucket)] = {"name": label, "wallet": wallet, "spent": 0, "delegates": []}
                self.books.buckets[str(bucket)]["monthlyLimit"] = str(said["monthlyLimit"])
            case "DelegateAdded":
                self.books.buckets[str(bucket)]["delegates"].append("somebody")
            case "FundsDeposited":
                self.books.add(("unallocated", wallet, None, token), amount)
            case "BucketFunded":
                self.books.add(("unallocated", wallet, None, token), -amount)
                self.books.add(("bucket", wallet, label, token), amount)
            case "SpentFromBucket":
                self.books.add(("bucket", wallet, label, token), -amount)
                self.books.buckets[str(bucket)]["spent"] += amount
            case "BucketTransfer":
                self.books.add(("bucket", wallet, label, token), -amount)
                self.books.add(("bucket", wallet, said["toBucket"], token), amount)
        return bucket

    # ---- what clients are told

    def amount(self, token: str, raw: int) -> dict[str, Any]:
        return {"raw": str(raw), "decimals": 6, "symbol": "USDC", "token": token, "usd": None}

    def balance(self, place: tuple[str, str, str | None, str]) -> dict[str, Any]:
        scope, wallet, label, token = place
        names = {"bucket": label, "bucketId": f"{wallet}:{label}" if label else None}
        amount = self.amount(token, self.books.balances.get(place, 0))
        return {"chainId": self.at.chain_id, "scope": scope, "wallet": wallet, **names, "amount": amount}

    def changes(self, before: Books) -> list[dict[str, Any]]:
        places = self.books.balances.keys() | before.balances.keys()
        moved = [p for p in places if self.books.balances.get(p, 0) != before.balances.get(p, 0)]
        return [self.balance(place) for place in sorted(moved, key=str)]

    def impact(self, bucket: str | None, before: Books) -> list[dict[str, Any]]:
        if bucket is None or self.books.buckets[bucket]["spent"] == before.buckets[bucket]["spent"]:
            return []
        ours = self.books.buckets[bucket]
        spent = {"spentBefore": str(before.buckets[bucket]["spent"]), "spentAfter": str(ours["spent"])}
        period = {"periodStart": None, "periodEnd": None, "budget": ours["monthlyLimit"], "decimals": 6}
        return [{"scope": "bucket", "bucketId": bucket, **spent, **period}]

    def bucket(self, key: str) -> dict[str, Any]:
        ours = self.books.buckets[key]
        held = [self.balance(p)["amount"] for p, raw in self.books.balances.items() if raw and f"{p[1]}:{p[2]}" == key]
        period = {"periodStart": None, "periodEnd": None}
        return {**copy.deepcopy(ours), "id": key, "spent": str(ours["spent"]), **period, "balances": held}

    def snapshot(self) -> dict[str, Any]:
        balances = [self.balance(place) for place, raw in self.books.balances.items() if raw]
        buckets = [self.bucket(key) for key in self.books.buckets]
        return {
            "seq": len(self.log),
            "balances": balances,
            "buckets": buckets,
            "budgets": [],
            "unreadCount": self.unread,
        }

    async def append(self, event: str, event_id: str, body: dict[str, Any]) -> None:
        payload = {"id": event_id, "seq": len(self.log) + 1, **body}
        self.log.append((event, payload))
        for socket in list(self.sockets):
            for _ in range(self.sabotage(event, payload)):
                await self.send(socket, event, payload)

    async def send(
        self, socket: web.WebSocketResponse, event: str, payload: dict[str, Any], *, tail: bool = True
    ) -> None:
        offset = [f"{EPOCH}:{payload['seq']}"] if tail else []
        with contextlib.suppress(ConnectionError):
            await socket.send_str("42" + orjson.dumps([event, payload, *offset]).decode())

    # ---- HTTP and Socket.IO

    async def on_socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        opening = {"sid": "e", "upgrades": [], "pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 10**6}
        await socket.send_str("0" + orjson.dumps(opening).decode())
        connect = (await socket.receive()).data
        auth = orjson.loads(connect.removeprefix("40") or "{}")
        if auth.get("token") != "access":
            await socket.send_str('44{"message":"unauthenticated","data":{"code":"unauthenticated"}}')
            return socket
        await socket.send_str('40{"sid":"s","pid":"p"}')
        recovered = auth.get("pid") == "p"
        since = int(auth["offset"].partition(":")[2]) if recovered else len(self.log)
        session = {"epoch": EPOCH, "seq": len(self.log), "recovered": recovered, "replayed": len(self.log) - since}
        await self.send(socket, "session", session, tail=False)
        if not recovered:
            await self.send(socket, "snapshot", self.snapshot())
        for event, payload in self.log[since:]:
            await self.send(socket, event, payload)
        self.sockets.add(socket)
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
        self.sockets.discard(socket)
        return socket

    async def on_rest(self, request: web.Request) -> web.Response:
        match request.path:
            case "/v1/auth/nonce":
                return web.json_response({"nonce": "abcdefgh1234"})
            case "/v1/auth/verify":
                body = await request.json()
                signer = Account.recover_message(encode_defunct(text=body["message"]), signature=body["signature"])
                self.user = signer.lower()
                return web.json_response({"accessToken": "access", "refreshToken": "r", "expiresIn": 900})
            case "/v1/snapshot":
                return web.json_response(self.snapshot())
            case "/v1/events":
                after = int(request.query["after"])
                page = [{"event": event, "payload": payload} for event, payload in self.log[after : after + 20]]
                return web.json_response({"data": page})
            case "/v1/devices":
                self.phone = (await request.json())["token"]
                return web.json_response({})
            case "/phones":
                if self.late and self.log[-1][0] != "notification":  # the log was read, the snapshot is yet to be
                    self.late = False
                    await self.append("unread_count", "late", {"unreadCount": self.unread})
                return web.json_response(self.pushes)
            case "/v1/budgets" | "/readyz":
                return web.json_response({})
        raise web.HTTPNotFound


@contextlib.asynccontextmanager
async def stub_product(node: Node, at: Any, **options: Any) -> AsyncIterator[str]:
    """Run the stand-in on a free port; gives its url."""
    stub = Stub(node, at, **options)
    app = web.Application()
    app.router.add_get("/socket.io/", stub.on_socket)
    app.router.add_route("*", "/{path:.*}", stub.on_rest)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    task = asyncio.create_task(stub.follow())
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for socket in list(stub.sockets):
            await socket.close()
        await runner.cleanup()
