"""Questions to every node of a chain at once: how they do, and who is right when two of them contradict each other.

Apart from the calls that follow the chain: the probe runs beside them every few seconds, and a vote is taken only when
a node contradicts what we have committed.
"""

from __future__ import annotations

from typing import Any

import structlog

from config import metrics
from store.nodes import Failed, Knows, Lied, liars
from store.rpc import Call, Rpc, quantity

logger = structlog.get_logger(__name__)

VOTE_S = 2.0
"""Time that a node has to vote (s): blocks wait meanwhile."""


async def probe(rpc: Rpc, *, within_s: float) -> None:
    """Ask every node which chain it serves, for its head, and for a block that is confirmed; judge by the answers."""
    settled = rpc.settled
    calls: list[Call] = [("eth_getBlockByNumber", ("latest", False)), ("eth_chainId", ())]
    if settled is not None:
        calls.append(("eth_getBlockByNumber", (hex(settled[0]), False)))
    answers = await rpc.ask_each(calls, within_s=within_s)
    right: dict[int, list[Any]] = {}
    for i, (latest, chain_id, *block) in answers.items():
        try:
            head, serves = quantity(latest["number"]), quantity(chain_id)
        except (TypeError, LookupError, ValueError):
            rpc.observe(i, Failed(1.0))
            continue
        rpc.serves(i, serves)
        if rpc.chain_id is None or serves == rpc.chain_id:
            right[i] = block
            if settled is not None and head > settled[0]:
                rpc.observe(i, Knows(_hash(block[0]) is not None))
    if settled is not None:
        _judge(rpc, settled, {i: _hash(block[0]) for i, block in right.items()}, grave=True)
    rpc.show()


async def outvoted(rpc: Rpc, number: int, ours: str | None, *, theirs: str, grave: bool) -> bool:
    """Whether the node that answered last, `theirs` at a height, is contradicted by those that are to be believed.

    It is then passed over, and put aside if that is `grave`: at a confirmed height. Otherwise nodes may see a reorg one
    after the other. False when nobody else answers.
    """
    accused = rpc.asked
    calls: list[Call] = [("eth_getBlockByNumber", (hex(number), False))]
    votes = {i: _hash(answer) for i, (answer,) in (await rpc.ask_each(calls, within_s=VOTE_S)).items()}
    return accused in _judge(rpc, (number, ours), {**votes, accused: theirs}, grave=grave)


def _judge(rpc: Rpc, at: tuple[int, str | None], hashes: dict[int, str | None], *, grave: bool) -> frozenset[int]:
    votes = {i: hash_ for i, hash_ in hashes.items() if hash_ is not None}
    found = liars(votes, at[1])
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
