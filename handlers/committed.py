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
    """Ask for the block's rows to be persisted and indexed as they are once this transaction commits."""
    await outbox.request_each(tx, _persistence(chain_id, ref))


async def request_what_follows(
    tx: Tx, chain_id: int, ref: BlockRef, *, generation: int, has_rows: bool, has_told: bool
) -> None:
    """Ask for what follows from a block that came or went: its rows persisted, achievements of its users looked at.

    One statement for all of it, since the block waits for it.
    """
    args = {"chainId": chain_id, "hash": ref.hash, "generation": generation}
    evaluation = [Wanted("quick", EVALUATE, args)] if has_told else []
    await outbox.request_each(tx, [*(_persistence(chain_id, ref) if has_rows else []), *evaluation])


def _persistence(chain_id: int, ref: BlockRef) -> list[Wanted]:
    """Two jobs, since search need not wait for ClickHouse."""
    args = {"chainId": chain_id, "number": ref.number, "hash": ref.hash}
    return [Wanted("quick", "persist_block", args), Wanted("quick", "index_block", args)]


async def request_evaluation(tx: Tx, users: Iterable[Address]) -> None:
    """Ask for the achievements of these users to be looked at once this transaction commits."""
    await outbox.request_each(tx, [Wanted("quick", EVALUATE, {"user": user}) for user in sorted(users)])
