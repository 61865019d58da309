"""One node over HTTP: requests of one or many calls, and whatever goes wrong as an RpcError.

Below store/rpc.py, which chooses among the nodes of a chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import orjson

from store.nodes import BatchSize

Kind: TypeAlias = Literal["transport", "timeout", "http", "jsonrpc", "malformed", "null"]
"""What went wrong. jsonrpc: the node refused; malformed: not JSON-RPC, or not what was asked for; null: the node does
not have it (yet)."""
Call: TypeAlias = tuple[str, Sequence[Any]]
"""Method and parameters."""

ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
"""Longest answer that is read: ten times the receipts of a very full block."""
BATCH = 100
"""Calls in one HTTP request at first: most public nodes take so many. A node that refuses gets fewer."""
METHOD_NOT_FOUND = -32601
_TOO_MUCH = ("too many", "too large", "too big", "more than", "limit", "exceed", "block range", "response size")
_BATCH_REFUSED = ("batch", "too large", "too many calls", "response size")  # "too many requests" is no matter of size
_HTTP_TOO_LARGE = 413
_INVALID_REQUEST = -32600


class RpcError(Exception):
    """A node did not answer a call; says which node (host only: providers put keys into urls) and which method."""

    def __init__(self, kind: Kind, detail: str, *, method: str = "", node: str = "", code: int | None = None) -> None:
        super().__init__(f"{method} at {node}: {kind}: {detail}" if node else f"{method}: {kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.method = method
        self.code = code

    @property
    def too_much(self) -> bool:
        """Whether asking for less may help."""
        said = self.kind == "jsonrpc" and any(word in self.detail.lower() for word in _TOO_MUCH)
        return said or self.kind == "timeout" or self.code == _HTTP_TOO_LARGE or self.detail == _TOO_LONG

    @property
    def refuses_batch(self) -> bool:
        """Whether a request of several calls was refused for being one, or for being so large."""
        said = any(word in self.detail.lower() for word in _BATCH_REFUSED) or self.code == _INVALID_REQUEST
        return (said and self.kind == "jsonrpc") or self.code == _HTTP_TOO_LARGE or self.detail == _TOO_LONG

    @property
    def unknown_method(self) -> bool:
        """Whether the node does not offer the method at all."""
        return self.kind == "jsonrpc" and (self.code == METHOD_NOT_FOUND or "method" in self.detail.lower())


_TOO_LONG = f"the answer is longer than {ANSWER_LIMIT_BYTES} bytes"


class WrongChain(Exception):
    """No url leads to the chain that the table says: correct `id` or `rpc` of its row."""


def host(url: str) -> str:
    """A url as it may be shown: scheme and host, without credentials, path and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _ids() -> Iterator[int]:
    return count(1)


@dataclass(slots=True, eq=False)
class Endpoint:
    """One url, and what was learned about how it wants to be asked."""

    url: str = field(repr=False)
    label: str
    """How logs and metrics name it: without path, query and credentials."""
    session: aiohttp.ClientSession
    timeout: aiohttp.ClientTimeout
    batch: BatchSize
    checked: bool = False
    """Whether it serves the chain."""
    unoffered: set[str] = field(default_factory=set)
    """Methods that it refused as unknown."""
    ids: Iterator[int] = field(default_factory=_ids)

    async def ask(self, calls: Sequence[Call]) -> list[Any]:
        """One request: results in the order of the calls, an RpcError where the node refused one."""
        ids = [next(self.ids) for _ in calls]
        requests = [
            {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}
            for id_, (method, params) in zip(ids, calls, strict=True)
        ]
        name = calls[0][0]
        status, text = await self._post(orjson.dumps(requests if len(requests) > 1 else requests[0]), name)
        try:
            answer = orjson.loads(text)
        except orjson.JSONDecodeError:
            answer = None
        if status != 200 and not (status < 429 and isinstance(answer, dict) and answer.get("error")):
            raise RpcError("http", f"status {status}", method=name, node=self.label, code=status)
        return list(_matched(answer, ids, calls, node=self.label))

    async def _post(self, body: bytes, method: str) -> tuple[int, bytes]:
        """Post and read, bounded in time and size; every failure is an RpcError without the url's path."""
        headers = {"Content-Type": "application/json"}
        try:
            async with self.session.post(self.url, data=body, headers=headers, timeout=self.timeout) as response:
                text = bytearray()
                async for chunk in response.content.iter_any():
                    text += chunk
                    if len(text) > ANSWER_LIMIT_BYTES:
                        raise RpcError("malformed", _TOO_LONG, method=method, node=self.label)
                return response.status, bytes(text)
        except TimeoutError:
            limit = f"no answer within {self.timeout.total:g} s"
            raise RpcError("timeout", limit, method=method, node=self.label) from None
        except (aiohttp.ClientError, OSError) as error:
            raise RpcError("transport", type(error).__name__, method=method, node=self.label) from None


def endpoints(urls: Sequence[str], timeout_s: float, session: aiohttp.ClientSession) -> list[Endpoint]:
    """The nodes of these urls; those of one host are told apart by their place."""
    hosts = [host(url) for url in urls]
    many = Counter(hosts)
    labels = [f"{name} #{at}" if many[name] > 1 else name for at, name in enumerate(hosts, 1)]
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    return [Endpoint(url, label, session, timeout, BatchSize(BATCH)) for url, label in zip(urls, labels, strict=True)]


def _matched(answer: Any, ids: Sequence[int], calls: Sequence[Call], *, node: str) -> Iterator[Any]:
    """Each call's result or refusal, by id: nodes may answer a batch in any order."""
    if isinstance(answer, dict) and len(ids) == 1:
        answer = [answer]
    if isinstance(answer, dict) and answer.get("error"):
        raise _refusal(answer["error"], calls[0][0], node)
    if not isinstance(answer, list):
        raise RpcError("malformed", "not a JSON-RPC answer", method=calls[0][0], node=node)
    if len(answer) == 1 < len(ids) and isinstance(answer[0], dict) and answer[0].get("error"):
        raise _refusal(answer[0]["error"], calls[0][0], node)  # a batch that was refused as a whole
    by_id = {one["id"]: one for one in answer if isinstance(one, dict) and isinstance(one.get("id"), int)}
    for id_, (method, _) in zip(ids, calls, strict=True):
        one = by_id.get(id_)
        if one is None and len(ids) == 1 and isinstance(answer[0], dict) and answer[0].get("error"):
            one = answer[0]  # a request that a node could not read is refused with id null
        if one is None or ("result" not in one and not one.get("error")):
            raise RpcError("malformed", "the answer has no such id", method=method, node=node)
        yield _refusal(one["error"], method, node) if one.get("error") else one["result"]


def _refusal(error: Any, method: str, node: str) -> RpcError:
    if not isinstance(error, dict):
        return RpcError("jsonrpc", str(error)[:200], method=method, node=node)
    code = error.get("code")
    detail = f"{error.get('message', '')}"[:200]  # a node's own words, which may be long
    return RpcError("jsonrpc", detail, method=method, node=node, code=code if isinstance(code, int) else None)


def quantity(value: Any) -> int:
    """A number as JSON-RPC writes it (`0x1f`); raises ValueError."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise ValueError("a number is not one")
    return int(value, 16)
