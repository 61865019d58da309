"""What a block's transaction leaves behind: frames and a message to publish, and the job that persists its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import orjson

from handlers.rules.periods import iso
from store import outbox
from store.outbox import Wanted
from store.postgres import Tx
from store.records import Address, BlockRef, Frame

EVALUATE = "evaluate"
"""Job that looks at achievements: of a user, or of everyone whom a block concerned."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a block's transaction did; `message` goes to the chain's channel, `frames` to the users'."""

    ref: BlockRef
    frames: Sequence[Frame]
    message: bytes
    transactions: int
    users: frozenset[Address]


def block_message(
    chain_id: int,
    ref: BlockRef,
    parent_hash: str,
    *,
    time: datetime,
    kind: Literal["apply", "revert"],
    transactions: int,
    users: Iterable[Address],
) -> bytes:
    """What `chain:<id>:blocks` carries for a committed or reverted block."""
    return orjson.dumps(
        {
            "chainId": chain_id,
            "number": ref.number,
            "hash": ref.hash,
            "parentHash": parent_hash,
            "time": iso(time),
            "kind": kind,
            "transactions": transactions,
            "users": sorted(users),
        }
    )


async def request_persistence(tx: Tx, chain_id: int, ref: BlockRef) -> None:
    """Ask for the block's rows to be persisted and indexed as they are once this transaction commits.

    Two jobs, since search need not wait for ClickHouse; one statement, since the block waits for it.
    """
    args = {"chainId": chain_id, "number": ref.number, "hash": ref.hash}
    await outbox.request_each(tx, [Wanted("quick", "persist_block", args), Wanted("quick", "index_block", args)])


async def request_evaluation(tx: Tx, users: Iterable[Address]) -> None:
    """Ask for the achievements of these users to be looked at once this transaction commits."""
    await outbox.request_each(tx, [Wanted("quick", EVALUATE, {"user": user}) for user in sorted(users)])


async def request_evaluation_of_block(tx: Tx, chain_id: int, ref: BlockRef, *, generation: int) -> None:
    """Ask for the achievements of everyone whom a block concerned, when it came or when it went."""
    args = {"chainId": chain_id, "hash": ref.hash, "generation": generation}
    await outbox.request(tx, "quick", EVALUATE, args)
