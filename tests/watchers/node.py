"""A scripted node over real HTTP and websocket: a chain that a test writes, and every way to answer it badly."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import orjson
from aiohttp import WSMsgType, web
from eth_utils.crypto import keccak

from config.chains import Chain, Token
from tests.factories import make_hash
from tests.watchers.said import FACTORY, USDC, WALLET, Tx, topic

CHAIN_ID = 1337
GENESIS_TIME = 1_790_000_000
Fault = Literal["drop", "hang", "http", "throttled", "jsonrpc", "not_json", "wrong_id", "null", "empty", "too_large"]


class Refusal(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class FakeBlock:
    number: int
    hash: str
    parent: str
    txs: tuple[Tx, ...] = ()

    def tx_hash(self, i: int) -> str:
        return make_hash("tx", self.txs[i].salt) if self.txs[i].salt else make_hash(self.hash, i)

    @property
    def time(self) -> int:
        return GENESIS_TIME + 2 * self.number

    def logs(self) -> list[dict[str, Any]]:
        placed = [(i, said) for i, tx in enumerate(self.txs) for said in tx.logs]
        return [
            {
                "address": said.address,
                "topics": list(said.topics),
                "data": said.data,
                "blockNumber": hex(self.number),
                "blockHash": self.hash,
                "transactionHash": self.tx_hash(i),
                "transactionIndex": hex(i),
                "logIndex": hex(index),
                "removed": False,
            }
            for index, (i, said) in enumerate(placed)
        ]

    def receipts(self) -> list[dict[str, Any]]:
        logs = self.logs()
        return [
            {
                "transactionHash": self.tx_hash(i),
                "blockHash": self.hash,
                "blockNumber": hex(self.number),
                "from": tx.sender,
                "to": tx.to,
                "type": hex(tx.type),
                "gasUsed": hex(tx.gas_used),
                "effectiveGasPrice": hex(tx.gas_price),
                **({"l1Fee": hex(tx.l1_fee)} if tx.l1_fee else {}),
                "logs": [log for log in logs if log["transactionIndex"] == hex(i)],
            }
            for i, tx in enumerate(self.txs)
        ]

    def header(self) -> dict[str, Any]:
        bloom = 0
        for log in self.logs():
            for item in (log["address"], *log["topics"]):
                digest = keccak(hexstr=item)
                for at in (0, 2, 4):
                    bloom |= 1 << (int.from_bytes(digest[at : at + 2]) & 2047)
        return {
            "number": hex(self.number),
            "hash": self.hash,
            "parentHash": self.parent,
            "timestamp": hex(self.time),
            "logsBloom": "0x" + bloom.to_bytes(256).hex(),
        }


@dataclass
class ScriptedNode:
    """`async with ScriptedNode() as node`; two nodes may share one list of blocks."""

    chain_id: int = CHAIN_ID
    blocks: list[FakeBlock] = field(default_factory=lambda: [FakeBlock(0, make_hash("genesis"), "0x" + "0" * 64)])
    orphans: dict[str, FakeBlock] = field(default_factory=dict)
    balances: dict[tuple[str, str], int] = field(default_factory=dict)
    finalized: int | None = 0
    """None: the node knows no such tag."""
    named_final: dict[str, Any] | None = None
    """The header it names final, whatever its blocks are."""
    lag: int = 0
    """Blocks that this node is behind."""
    unknown_numbers: set[int] = field(default_factory=set)
    """Heights at which it has no block, though it has later ones."""
    unoffered: set[str] = field(default_factory=set)
    takes_batches: bool = True
    longest_batch: int = 1_000
    refuses_batch_by: str = "error"
    """Or `list`: by a list with that error alone; or `413`: by the status."""
    deaf: bool = False
    """Whether the websocket answers no pings any more."""
    takes_block_hash: bool = True
    longest_range: int = 1_000_000
    silent: bool = False
    """Whether the websocket takes subscriptions and announces nothing."""
    calls: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    on_call: Callable[[str, Sequence[Any]], None] | None = None
    _faults: list[tuple[str, Fault]] = field(default_factory=list)
    _sockets: set[web.WebSocketResponse] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/{key:.*}", self._http)
        app.router.add_get("/{key:.*}", self._websocket)
        self._released = asyncio.Event()
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._released.set()
        await self.cut()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/a-key-nobody-may-see"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/a-key-nobody-may-see"

    def chain(self, *others: ScriptedNode, **overrides: Any) -> Chain:
        """The chain's row."""
        facts: dict[str, Any] = {
            "name": "scripted",
            "id": self.chain_id,
            "rpc": tuple(node.url for node in (self, *others)),
            "finality_depth": 12,
            "wallets": (WALLET,),
            "factories": (FACTORY,),
            "tokens": (Token(USDC, "USDC", 6, "usd"),),
            **overrides,
        }
        return Chain(**facts)

    # What happens on the chain

    @property
    def head(self) -> FakeBlock:
        return self.blocks[-1]

    @property
    def hashes(self) -> list[str]:
        return [block.hash for block in self.blocks]

    def mine(self, *txs: Tx, fork: str = "") -> FakeBlock:
        """A block with these transactions; another `fork` gives it another hash."""
        parent = self.head
        block = FakeBlock(parent.number + 1, make_hash(parent.hash, len(txs), fork), parent.hash, txs)
        self.blocks.append(block)
        return block

    def mine_many(self, count: int, *, fork: str = "") -> None:
        for _ in range(count):
            self.mine(fork=fork)

    def reorg(self, depth: int, *contents: Iterable[Tx], fork: str = "fork") -> None:
        """Replace the newest blocks, by as many or by `contents` (transactions of each new block) if more."""
        for block in self.blocks[-depth:]:
            self.orphans[block.hash] = block
        del self.blocks[-depth:]
        for txs in [*contents, *[()] * (depth - len(contents))]:
            self.mine(*txs, fork=fork)

    def restore(self, blocks: Sequence[FakeBlock]) -> None:
        """Let blocks that were replaced come back."""
        self.orphans.update({block.hash: block for block in self.blocks[blocks[0].number :]})
        self.blocks[blocks[0].number :] = blocks

    async def announce(self, *blocks: FakeBlock, times: int = 1) -> None:
        """Tell every subscriber of these blocks, or of the newest."""
        for block in blocks or (self.head,):
            params = {"subscription": "0x1", "result": block.header()}
            text = orjson.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": params}).decode()
            for _ in range(times):
                await self.say(text)

    async def say(self, text: str) -> None:
        """Send a message to every subscriber."""
        for socket in list(self._sockets):
            with suppress(ConnectionError):
                await socket.send_str(text)

    @property
    def subscribers(self) -> int:
        return len(self._sockets)

    async def cut(self) -> None:
        """End every websocket."""
        for socket in list(self._sockets):
            await socket.close()

    def fail(self, method: str, *faults: Fault) -> None:
        """Answer the next calls of a method (or of any, `*`) like that, one after the other."""
        self._faults += [(method, fault) for fault in faults]

    # How it answers

    async def _http(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        many = isinstance(body, list)
        calls = body if many else [body]
        self.requests += 1
        for call in calls:
            self.calls[call["method"]] += 1
            if self.on_call is not None:
                self.on_call(call["method"], call["params"])
        fault = self._next_fault([call["method"] for call in calls])
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
        if fault == "hang":
            await self._released.wait()
        if fault in ("http", "throttled"):
            return web.Response(status=500 if fault == "http" else 429, text="<html>busy</html>")
        if fault == "not_json":
            return web.Response(text="{")
        if many and (not self.takes_batches or len(calls) > self.longest_batch or fault == "too_large"):
            if self.refuses_batch_by == "413":
                return web.Response(status=413, text="<html>too large</html>")
            error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "batch too large"}}
            return web.json_response([error] if self.refuses_batch_by == "list" else error)
        answers = [self._answer(call, fault) for call in calls]
        answers.reverse()  # a batch's answers come in any order
        return web.json_response(body=orjson.dumps(answers if many else answers[0]))

    def _next_fault(self, methods: Sequence[str]) -> Fault | None:
        for at, (method, fault) in enumerate(self._faults):
            if method == "*" or method in methods:
                del self._faults[at]
                return fault
        return None

    def _answer(self, call: Mapping[str, Any], fault: Fault | None) -> dict[str, Any]:
        head = {"jsonrpc": "2.0", "id": call["id"] + (10_000 if fault == "wrong_id" else 0)}
        try:
            if fault == "jsonrpc" or call["method"] in self.unoffered:
                raise Refusal(-32000 if fault else -32601, "header not found" if fault else "the method does not exist")
            result = self._result(call["method"], call["params"])
        except Refusal as refusal:
            return {**head, "error": {"code": refusal.code, "message": str(refusal)}}
        return {**head, "result": [] if fault == "empty" else None if fault == "null" else result}

    def _seen(self) -> list[FakeBlock]:
        return self.blocks[: len(self.blocks) - self.lag]

    def _by_hash(self, hash_: str) -> FakeBlock | None:
        seen = {block.hash: block for block in self._seen()}
        return seen.get(hash_) or self.orphans.get(hash_)

    def _result(self, method: str, params: Sequence[Any]) -> Any:
        answers: dict[str, Callable[..., Any]] = {
            "eth_chainId": lambda: hex(self.chain_id),
            "web3_clientVersion": lambda: "scripted/1.0",
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": lambda hash_, _full: found.header() if (found := self._by_hash(hash_)) else None,
            "eth_getLogs": self._logs,
            "eth_getBlockReceipts": lambda hash_: found.receipts() if (found := self._by_hash(hash_)) else None,
            "eth_getTransactionReceipt": self._receipt,
            "eth_call": self._call,
        }
        return answers[method](*params)

    def _block_by_number(self, which: str, _full: bool) -> Any:
        seen = self._seen()
        if which == "finalized":
            if self.named_final is not None:
                return self.named_final
            if self.finalized is None:
                raise Refusal(-32602, "unknown tag: finalized")
            return self.blocks[self.finalized].header()  # as if another node behind the same url said it
        number = seen[-1].number if which == "latest" else int(which, 16)
        return seen[number].header() if number < len(seen) and number not in self.unknown_numbers else None

    def _logs(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        if "blockHash" in asked:
            block = self._by_hash(asked["blockHash"])
            if block is None:
                raise Refusal(-32000, "unknown block")
            blocks = [block]
        else:
            first, last = int(asked["fromBlock"], 16), int(asked["toBlock"], 16)
            if last - first >= self.longest_range:
                raise Refusal(-32005, f"query exceeds max block range {self.longest_range}")
            blocks = [block for block in self._seen() if first <= block.number <= last]
        (topics,) = asked["topics"]
        return [
            log
            for block in blocks
            for log in block.logs()
            if log["topics"][:1]
            and log["topics"][0] in topics
            and log["address"] in asked.get("address", [log["address"]])
        ]

    def _receipt(self, tx: str) -> Any:
        receipts = (receipt for block in reversed(self._seen()) for receipt in block.receipts())
        return next((receipt for receipt in receipts if receipt["transactionHash"] == tx), None)

    def _call(self, call: Mapping[str, str], block: Any) -> str:
        if isinstance(block, dict):
            if not self.takes_block_hash:
                raise Refusal(-32602, "invalid argument 1: expected a string")
            if self._by_hash(block["blockHash"]) is None:
                raise Refusal(-32001, "Resource not found")
        held = self.balances.get((call["to"], "0x" + call["data"][-40:]))
        return "0x" if held is None else topic(held)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        self.calls["websocket"] += 1
        socket = web.WebSocketResponse(autoping=not self.deaf)
        await socket.prepare(request)
        with suppress(ConnectionError):
            async for message in socket:
                if message.type == WSMsgType.PING:
                    continue
                if message.type != WSMsgType.TEXT:
                    break
                call = orjson.loads(message.data)
                subscribes = call["method"] == "eth_subscribe"
                result = "0x1" if subscribes else self._result(call["method"], call["params"])
                await socket.send_str(orjson.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}).decode())
                if subscribes and not self.silent:
                    self._sockets.add(socket)
        self._sockets.discard(socket)
        return socket
