"""JSON-RPC over HTTP to the nodes of one chain: batches, fail-over, and no answer that is not one.

An error is never an empty result: whatever a node does wrong is an RpcError with its kind. Retrying is the caller's.
Who is asked is decided in store/nodes.py; store/probe.py asks every node now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import aiohttp
import structlog

from config import metrics
from store import jsonrpc, nodes
from store.jsonrpc import Call, Kind, RpcError, WrongChain, endpoints, host, quantity
from store.nodes import Failed, Knows, Lied, Limits, Pool, Reason, Seen, Told, Verdict

logger = structlog.get_logger(__name__)

WEIGHTS: Mapping[Kind, float] = {
    "transport": 1.0,
    "timeout": 1.5,  # it has cost the most
    "http": 1.0,
    "malformed": 1.5,
    "jsonrpc": 0.5,  # the call may be at fault
    "null": 0.5,  # it may have it in a moment
}
"""What each fault weighs against a node; at nodes.STRIKES it is put aside."""


class Rpc:
    """The nodes of one chain. Calls go to the node that answered last; a failing one passes them to the next."""

    def __init__(
        self,
        urls: Sequence[str],
        timeout_s: float,
        session: aiohttp.ClientSession,
        *,
        chain_id: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`timeout_s` bounds each HTTP request; with `chain_id` a url that serves another chain answers nothing."""
        self.chain_id = chain_id
        self.lies = 0
        """How often a node was found to serve another chain or history: what it told before is not to be believed."""
        self.settled: tuple[int, str] | None = None
        """Number and hash of a committed block that every node should have: what they are compared by."""
        self._endpoints = endpoints(urls, timeout_s, session)
        self._pool = Pool.of(len(urls), limits or Limits())
        self._answered: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._torn: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._avoided: WeakKeyDictionary[asyncio.Task[Any], Collection[int]] = WeakKeyDictionary()

    @property
    def nodes(self) -> int:
        """How many nodes may be asked now: those put aside are not counted, unless all are."""
        wrong = (node.aside_for == "wrong_chain" and node.is_aside(_now()) for node in self._pool.nodes)
        return 0 if all(wrong) else len(self._pool.usable(_now()))

    @property
    def alone(self) -> bool:
        """Whether the chain has one node only, with which no other can be compared."""
        return len(self._endpoints) == 1

    @property
    def asked(self) -> int:
        """The node that answered this task last, else the one in use."""
        return self._answered.get(_task(), self._order()[0])

    @property
    def torn(self) -> bool:
        """Whether calls that belong together came in several requests, when this task asked last."""
        return _task() in self._torn

    @property
    def limits(self) -> Limits:
        """What is asked of the nodes."""
        return self._pool.limits

    def offers(self, method: str) -> bool:
        """Whether the node in use has not refused the method before."""
        return method not in self._endpoints[self._order()[0]].unoffered

    async def call(self, method: str, *params: Any) -> Any:
        """The result of one call."""
        return (await self.batch([(method, params)]))[0]

    async def batch(self, calls: Sequence[Call], *, together: int = 1) -> list[Any]:
        """Results in the order of the calls; raises the first RpcError among them.

        Each `together` calls are sent in one request, to be answered from one view of the chain, unless the node takes
        fewer: then `torn` says so.
        """
        answers = await self.answers(calls, together=together)
        for answer in answers:
            if isinstance(answer, RpcError):
                self.turn(0 if answer.too_much or answer.unknown_method else WEIGHTS["jsonrpc"])
                raise answer
        return answers

    async def answers(self, calls: Sequence[Call], *, together: int = 1) -> list[Any]:
        """Results in the order of the calls, an RpcError of kind jsonrpc where the node refused one."""
        self._torn.discard(_task())
        size = _multiple(jsonrpc.BATCH, together)
        parts = [calls[start : start + size] for start in range(0, len(calls), size)]
        return [answer for part in parts for answer in await self._anywhere(part, together=together)]

    def turn(self, weight: float = WEIGHTS["jsonrpc"], *, reason: Reason = "error") -> None:
        """Prefer another node than the one that answered last from now on; the fault weighs so much against it."""
        self.observe(self.asked, Failed(weight, reason))

    def fault(self, kind: Kind, detail: str, *, method: str) -> RpcError:
        """The error to raise when an answer is not what it should be; the next try goes to another node."""
        error = RpcError(kind, detail, method=method, node=self._endpoints[self.asked].label)
        metrics.RPC_ERRORS.labels(str(self.chain_id), kind).inc()
        self.turn(WEIGHTS[kind])
        return error

    @contextmanager
    def reading(self, method: str) -> Iterator[None]:
        """Turn whatever goes wrong while an answer is taken apart into an RpcError of kind malformed."""
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            detail = f"the answer can't be read ({type(error).__name__}: {error})"[:200]
            raise self.fault("malformed", detail, method=method) from error

    @contextmanager
    def elsewhere(self, whom: Collection[int]) -> Iterator[None]:
        """Ask others before these nodes meanwhile, in this task."""
        task = _task()
        self._avoided[task] = whom
        try:
            yield
        finally:
            self._avoided.pop(task, None)

    # What is known of the nodes -------------------------------------------------------------------------------------

    def stands_at(self, number: int, settled: tuple[int, str] | None) -> None:
        """Say where our ledger stands, and which block below it (number, hash) is confirmed."""
        self._pool = replace(self._pool, committed=number)
        self.settled = settled

    def observe(self, i: int, seen: Seen) -> Verdict | None:
        """Take note of what was seen of a node; counts and tells when it is passed over for it."""
        self._pool, verdict = nodes.observe(self._pool, i, seen, now=_now())
        if verdict is None:
            return None
        if verdict.reason in ("wrong_chain", "disagreement"):
            self.lies += 1
            self._endpoints[i].checked = False
        metrics.RPC_FAILOVERS.labels(str(self.chain_id), verdict.reason).inc()
        tell = logger.error if isinstance(seen, Lied | Knows) else logger.warning if verdict.pause_s else logger.info
        tell(
            "rpc_node_passed_over",
            chain=self.chain_id,
            node=self._endpoints[i].label,
            reason=verdict.reason,
            aside_s=round(verdict.pause_s, 1),
            now=self._endpoints[self._order()[0]].label,
        )
        return verdict

    def show(self) -> None:
        """Set the gauges: nodes in use and put aside, and how far each is behind."""
        now, chain = _now(), str(self.chain_id)
        aside = sum(node.is_aside(now) for node in self._pool.nodes)
        metrics.RPC_NODES.labels(chain, "aside").set(aside)
        metrics.RPC_NODES.labels(chain, "usable").set(len(self._endpoints) - aside)
        for i, endpoint in enumerate(self._endpoints):
            metrics.RPC_NODE_LAG.labels(chain, endpoint.label).set(self._pool.lag(i, now))

    @property
    def usable(self) -> tuple[int, ...]:
        """Nodes that are not put aside, or all if all are."""
        return self._pool.usable(_now())

    @property
    def jury(self) -> tuple[int, ...]:
        """Nodes that may vote."""
        return self._pool.jury(_now())

    async def ask_each(self, whom: Sequence[int], calls: Sequence[Call], *, within_s: float) -> dict[int, list[Any]]:
        """The same calls to some nodes at once: the answers by node, of those that answered."""
        tasks = {asyncio.create_task(self._alone(i, calls)): i for i in whom}
        late: set[asyncio.Task[list[Any] | None]] = set()
        try:
            done, late = await asyncio.wait(tasks, timeout=within_s) if tasks else (set(), set())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in late:
            self.failed(tasks[task], RpcError("timeout", f"no answer within {within_s:g} s", method=calls[0][0]))
        return {tasks[task]: answers for task in done if (answers := task.result()) is not None}

    async def _alone(self, i: int, calls: Sequence[Call]) -> list[Any] | None:
        try:
            answers = await self._in_batches(i, calls)
        except RpcError as error:
            self.failed(i, error)
            return None
        self._note_refusals(i, answers)
        return answers

    def _order(self) -> tuple[int, ...]:
        """Whom to ask, in order."""
        order = self._pool.usable(_now())
        avoided = self._avoided.get(_task(), ())
        return tuple(sorted(order, key=avoided.__contains__)) if avoided else order

    def _learn(self, i: int, calls: Sequence[Call], answers: Sequence[Any]) -> None:
        """Heads that pass by tell how a node does: no call is made for them."""
        for (method, params), answer in zip(calls, answers, strict=True):
            if method == "eth_getBlockByNumber" and params[0] == "latest" and isinstance(answer, dict):
                try:
                    head = quantity(answer.get("number"))
                except ValueError:
                    continue  # whoever reads the answer says so
                self.observe(i, Told(head, vouched=False))

    # Asking ---------------------------------------------------------------------------------------------------------

    async def _anywhere(self, calls: Sequence[Call], *, together: int) -> list[Any]:
        """Try each node once."""
        last: RpcError | None = None
        order = self._order()
        for i in (*order, *(i for i in range(len(self._endpoints)) if i not in order)):
            if last is not None and i not in order:
                break  # who is put aside is asked only where all others turn out to serve another chain
            try:
                await self._check_chain(i)
                answers = await self._in_batches(i, calls, together=together)
            except WrongChain:
                continue
            except RpcError as error:
                last = error
                self.failed(i, error)
                continue
            self._answered[_task()] = i
            self._note_refusals(i, answers)
            self._learn(i, calls, answers)
            return answers
        if last is None:
            raise WrongChain(f"no url of chain {self.chain_id} serves it: correct `id` or `rpc` of its row")
        raise last

    def failed(self, i: int, error: RpcError) -> None:
        """Take note of what went wrong with a node; the next one is asked from now on."""
        self._note(i, error)
        self.observe(i, Failed(WEIGHTS[error.kind]))

    def _note_refusals(self, i: int, answers: Sequence[Any]) -> None:
        for answer in answers:
            if isinstance(answer, RpcError):
                self._note(i, answer)

    def _note(self, i: int, error: RpcError) -> None:
        metrics.RPC_ERRORS.labels(str(self.chain_id), error.kind).inc()
        if error.unknown_method:
            self._endpoints[i].unoffered.add(error.method)

    async def _check_chain(self, i: int) -> None:
        if self.chain_id is None or self._endpoints[i].checked:
            return
        (answer,) = await self._endpoints[i].ask([("eth_chainId", ())])
        if isinstance(answer, RpcError):
            raise answer
        try:
            serves = quantity(answer)
        except ValueError as error:
            label = self._endpoints[i].label
            raise RpcError("malformed", str(error), method="eth_chainId", node=label) from None
        self.serves(i, serves)
        if serves != self.chain_id:
            raise WrongChain(f"serves chain {serves}")

    def serves(self, i: int, chain_id: int) -> None:
        """Take note of which chain a node says to serve."""
        if self.chain_id is None or chain_id == self.chain_id:
            self._endpoints[i].checked = True
            return
        self._endpoints[i].checked = False
        logger.error("rpc_wrong_chain", chain=self.chain_id, node=self._endpoints[i].label, serves=chain_id)
        self.observe(i, Lied("wrong_chain"))

    def labelled(self, by_node: Mapping[int, str]) -> dict[str, str]:
        """The same by the names of the nodes, for a log line."""
        return {self._endpoints[i].label: value for i, value in by_node.items()}

    async def _in_batches(self, i: int, calls: Sequence[Call], *, together: int = 1) -> list[Any]:
        """Ask one node in as large batches as it takes."""
        endpoint = self._endpoints[i]
        answers: list[Any] = []
        while len(answers) < len(calls):
            size = _multiple(endpoint.batch.size, together)
            if size < together:
                self._torn.add(_task())
            part = calls[len(answers) : len(answers) + size]
            try:
                answers += await endpoint.ask(part)
            except RpcError as error:
                if len(part) == 1 or not error.refuses_batch:
                    raise
                endpoint.batch.refused(len(part))
                metrics.RPC_BATCHES_REFUSED.labels(str(self.chain_id)).inc()
                logger.info("rpc_batch_refused", chain=self.chain_id, node=endpoint.label, size=endpoint.batch.size)
            else:
                endpoint.batch.worked(len(part))
        return answers


def _multiple(size: int, together: int) -> int:
    """The largest multiple of `together` that fits, or `size` itself where none does."""
    return size // together * together or size


def _now() -> float:
    return asyncio.get_running_loop().time()


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "nodes are asked from tasks"
    return task


__all__ = ["Call", "Kind", "Limits", "Rpc", "RpcError", "WrongChain", "host", "quantity"]
