"""Questions to every node of a chain at once: how they do, and who is right when two of them contradict each other.

Apart from the calls that follow the chain: the probe runs beside them every few seconds, and a vote is taken only when
a node contradicts what we have committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import structlog

from config import metrics
from store import nodes
from store.nodes import Failed, Knows, Lied, Told
from store.rpc import Call, Rpc, RpcError, quantity

logger = structlog.get_logger(__name__)

VOTE_S = 2.0
"""Time that a node has to vote (s): blocks wait meanwhile."""


async def probe(rpc: Rpc, *, within_s: float) -> None:
    """Ask every node which chain it serves, for its head, and for a block that is confirmed; judge by the answers."""
    settled = rpc.settled
    calls: list[Call] = [("eth_getBlockByNumber", ("latest", False)), ("eth_chainId", ())]
    if settled is not None:
        calls.append(("eth_getBlockByNumber", (hex(settled[0]), False)))
    answers = await rpc.ask_each(rpc.usable, calls, within_s=within_s)
    heads: dict[int, int] = {}
    for i, (latest, chain_id, *_) in answers.items():
        try:
            heads[i], serves = quantity(latest["number"]), quantity(chain_id)
        except (TypeError, LookupError, ValueError):
            rpc.failed(i, RpcError("malformed", "neither a head nor a chain id", method="eth_getBlockByNumber"))
        else:
            rpc.serves(i, serves)
            if serves != (rpc.chain_id or serves):
                del heads[i]
    if settled is not None:
        hashes = {i: _hash(answers[i][2]) for i in heads}
        liars = _judge(rpc, settled, hashes, grave=True)
        for i in heads.keys() - liars:
            if heads[i] > settled[0]:
                rpc.observe(i, Knows(hashes[i] is not None))
        heads = {i: head for i, head in heads.items() if i not in liars}
    for i, head in heads.items():  # last: heads of nodes that lie are compared with nobody's
        rpc.observe(i, Told(head))
    rpc.show()


Vote: TypeAlias = Literal["upheld", "outvoted", "unanswered"]


async def vote(rpc: Rpc, number: int, ours: str | None, *, theirs: str, grave: bool) -> Vote:
    """Let the others vote on the block `theirs` at a height, which the node that answered last has instead of `ours`.

    Outvoted, the node is passed over, and put aside if that is `grave`: at a confirmed height. Otherwise nodes may see
    a reorg one after the other. Unanswered: nobody else has a block there, or answers.
    """
    accused = rpc.asked
    calls: list[Call] = [("eth_getBlockByNumber", (hex(number), False))]
    others = [i for i in rpc.jury if i != accused]
    answers = await rpc.ask_each(others, calls, within_s=VOTE_S)
    votes = {i: hash_ for i, (answer,) in answers.items() if (hash_ := _hash(answer)) is not None}
    found = _judge(rpc, (number, ours), {**votes, accused: theirs}, grave=grave)
    if accused in found:
        return "outvoted"
    return "upheld" if votes else "unanswered"


def _judge(rpc: Rpc, at: tuple[int, str | None], hashes: Mapping[int, str | None], *, grave: bool) -> frozenset[int]:
    votes = {i: hash_ for i, hash_ in hashes.items() if hash_ is not None}
    found = nodes.liars(votes, at[1])
    if len(set(votes.values())) > 1:
        tell = logger.error if grave else logger.warning
        tell("rpc_disagreement", chain=rpc.chain_id, number=at[0], ours=at[1], votes=rpc.labelled(votes))
        metrics.RPC_DISAGREEMENTS.labels(str(rpc.chain_id)).inc()
    for i in found:
        rpc.observe(i, Lied("disagreement") if grave else Failed(1.0, "disagreement"))
    return found


def _hash(answer: Any) -> str | None:
    found = answer.get("hash") if isinstance(answer, dict) else None
    return found.lower() if isinstance(found, str) else None
