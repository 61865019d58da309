"""JSON-RPC over HTTP to the nodes of one chain: batches, fail-over, and no answer that is not one.

An error is never an empty result: whatever a node does wrong is an RpcError with its kind. Retrying is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import orjson
import structlog

from config import metrics

logger = structlog.get_logger(__name__)

Kind: TypeAlias = Literal["transport", "timeout", "http", "jsonrpc", "malformed", "null"]
"""What went wrong. jsonrpc: the node refused; malformed: not JSON-RPC, or not what was asked for; null: the node does
not have it (yet)."""
Call: TypeAlias = tuple[str, Sequence[Any]]
"""Method and parameters."""

ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
"""Longest answer that is read: ten times the receipts of a very full block."""
BATCH = 100
"""Calls in one HTTP request: public nodes refuse more."""
METHOD_NOT_FOUND = -32601
_TOO_MUCH = ("too many", "too large", "too big", "more than", "limit", "exceed", "block range", "response size")
_HTTP_TOO_LARGE = 413


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


class Rpc:
    """The nodes of one chain. Calls go to the node that answered last; a failing one passes them to the next."""

    def __init__(
        self, urls: Sequence[str], timeout_s: float, session: aiohttp.ClientSession, *, chain_id: int | None = None
    ) -> None:
        """`timeout_s` bounds each HTTP request; with `chain_id` every url must serve that chain, else it is dropped."""
        self.chain_id = chain_id
        self._urls = list(urls)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session = session
        self._checked: set[str] = set()
        self._unoffered: set[tuple[str, str]] = set()
        self._ids = count(1)

    @property
    def nodes(self) -> int:
        """How many nodes are in use."""
        return len(self._urls)

    def offers(self, method: str) -> bool:
        """Whether the node in use has not refused the method before."""
        return not self._urls or (self._urls[0], method) not in self._unoffered

    async def call(self, method: str, *params: Any) -> Any:
        """The result of one call."""
        return (await self.batch([(method, params)]))[0]

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        """Results in the order of the calls; raises the first RpcError among them."""
        answers = await self.answers(calls)
        for answer in answers:
            if isinstance(answer, RpcError):
                self.turn()
                raise answer
        return answers

    async def answers(self, calls: Sequence[Call]) -> list[Any]:
        """Results in the order of the calls, an RpcError of kind jsonrpc where the node refused one."""
        parts = [calls[start : start + BATCH] for start in range(0, len(calls), BATCH)]
        return [answer for part in parts for answer in await self._anywhere(part)]

    def turn(self) -> None:
        """Prefer the next node from now on."""
        if len(self._urls) > 1:
            self._pass_on(self._urls[0])

    def fault(self, kind: Kind, detail: str, *, method: str) -> RpcError:
        """The error to raise when an answer is not what it should be; the next try goes to another node."""
        error = RpcError(kind, detail, method=method, node=host(self._urls[0]) if self._urls else "")
        metrics.RPC_ERRORS.labels(str(self.chain_id), kind).inc()
        self.turn()
        return error

    @contextmanager
    def reading(self, method: str) -> Iterator[None]:
        """Turn whatever goes wrong while an answer is taken apart into an RpcError of kind malformed."""
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            detail = f"the answer can't be read ({type(error).__name__}: {error})"[:200]
            raise self.fault("malformed", detail, method=method) from error

    async def _anywhere(self, calls: Sequence[Call]) -> list[Any]:
        """Try each node once."""
        last: RpcError | None = None
        for url in tuple(self._urls):
            try:
                await self._check_chain(url)
                answers = await self._ask(url, calls)
            except RpcError as error:
                last = error
                self._failed(url, error)
                continue
            for answer in answers:
                if isinstance(answer, RpcError):
                    self._note(url, answer)
            return answers
        if last is None or not self._urls:
            raise WrongChain(f"no url of chain {self.chain_id} serves it: correct `id` or `rpc` of its row")
        raise last

    def _failed(self, url: str, error: RpcError) -> None:
        self._note(url, error)
        if url in self._urls and len(self._urls) > 1:
            self._pass_on(url)

    def _note(self, url: str, error: RpcError) -> None:
        metrics.RPC_ERRORS.labels(str(self.chain_id), error.kind).inc()
        if error.unknown_method:
            self._unoffered.add((url, error.method))

    def _pass_on(self, url: str) -> None:
        """Put a node last, unless another call has done so already."""
        if self._urls[0] == url:
            self._urls.append(self._urls.pop(0))
            logger.info("rpc_node_changed", chain=self.chain_id, node=host(self._urls[0]))

    async def _check_chain(self, url: str) -> None:
        if self.chain_id is None or url in self._checked:
            return
        (answer,) = await self._ask(url, [("eth_chainId", ())])
        if isinstance(answer, RpcError):
            raise answer
        with self.reading("eth_chainId"):
            serves = quantity(answer)
        if serves == self.chain_id:
            self._checked.add(url)
            return
        if url in self._urls:
            self._urls.remove(url)
        metrics.RPC_ERRORS.labels(str(self.chain_id), "wrong_chain").inc()
        logger.error("rpc_wrong_chain", chain=self.chain_id, node=host(url), serves=serves)
        raise RpcError("malformed", f"serves chain {serves}", method="eth_chainId", node=host(url))

    async def _ask(self, url: str, calls: Sequence[Call]) -> list[Any]:
        ids = [next(self._ids) for _ in calls]
        requests = [
            {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}
            for id_, (method, params) in zip(ids, calls, strict=True)
        ]
        name = calls[0][0]
        status, text = await self._post(url, orjson.dumps(requests if len(requests) > 1 else requests[0]), name)
        try:
            answer = orjson.loads(text)
        except orjson.JSONDecodeError:
            answer = None
        if status != 200 and not (status < 429 and isinstance(answer, dict) and answer.get("error")):
            raise RpcError("http", f"status {status}", method=name, node=host(url), code=status)
        return list(_matched(answer, ids, calls, node=host(url)))

    async def _post(self, url: str, body: bytes, method: str) -> tuple[int, bytes]:
        """Post and read, bounded in time and size; every failure is an RpcError without the url's path."""
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(url, data=body, headers=headers, timeout=self._timeout) as response:
                text = bytearray()
                async for chunk in response.content.iter_any():
                    text += chunk
                    if len(text) > ANSWER_LIMIT_BYTES:
                        raise RpcError("malformed", _TOO_LONG, method=method, node=host(url))
                return response.status, bytes(text)
        except TimeoutError:
            limit = f"no answer within {self._timeout.total:g} s"
            raise RpcError("timeout", limit, method=method, node=host(url)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise RpcError("transport", type(error).__name__, method=method, node=host(url)) from None


def _matched(answer: Any, ids: Sequence[int], calls: Sequence[Call], *, node: str) -> Iterator[Any]:
    """Each call's result or refusal, by id: nodes may answer a batch in any order."""
    if isinstance(answer, dict) and len(ids) == 1:
        answer = [answer]
    if isinstance(answer, dict) and answer.get("error"):
        raise _refusal(answer["error"], calls[0][0], node)
    if not isinstance(answer, list):
        raise RpcError("malformed", "not a JSON-RPC answer", method=calls[0][0], node=node)
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
