"""Memos: a user notes what a transaction was for, before or after it happens; its category is thought over again."""

from __future__ import annotations

import re

from config import keys
from handlers.deps import Deps
from handlers.errors import FieldError, Invalid, NotFound
from store import history, log, memos, outbox
from store.memos import MemoKey
from store.postgres import Tx, in_transaction
from store.records import Address
from store.sealed import KeyRing

MEMO_MAX = 280
"""Characters of a memo: a sentence or two."""

_ID = re.compile(r"([0-9]{1,18}):(0x[0-9a-f]{64}):([0-9]{1,10})")


async def note_transaction(deps: Deps, user: Address, transaction_id: str, memo: str) -> None:
    """Note something on one of the user's own rows ('' removes it); raises NotFound for anything else.

    A delegate's row is its owner's to note on: it counts as not found.
    """
    match = _ID.fullmatch(transaction_id)
    if match is None or int(match[1]) not in deps.chains:
        raise NotFound("You have no transaction of this id.")
    key: MemoKey = (user, int(match[1]), match[2], int(match[3]))

    async def body(tx: Tx) -> None:
        # The block that brings this transaction either is committed, or will read the memo: it takes this lock too.
        await log.lock(tx, [user])
        row = await history.transaction(tx, user, transaction_id, chain_id=key[1])
        if row is None or row.role != "owner":
            raise NotFound("You have no transaction of this id.")
        # Where the whole transaction has a note, an empty one here says that this row shows none.
        await _keep(deps, tx, key, memo, needed=bool(memo) or await memos.has_whole(tx, *key[:3]))
        await _index(tx, key)
        if row.canonical:
            await _think_again(tx, user, transaction_id)

    await in_transaction(deps.pool, body)
    await deps.publisher.wake(keys.JOBS_WAKE)


async def note_ahead(deps: Deps, user: Address, chain_id: int, tx_hash: str, memo: str) -> None:
    """Note something on a whole transaction that may not be known yet ('' removes it); raises Invalid for the chain.

    It applies to each of the user's own rows of it that has no memo of its own.
    """
    if chain_id not in deps.chains:
        raise Invalid("This chain is not served here.", errors=[FieldError("/chainId", "is not one of /v1/chains")])

    key: MemoKey = (user, chain_id, tx_hash, None)

    async def body(tx: Tx) -> None:
        await log.lock(tx, [user])
        await _keep(deps, tx, key, memo, needed=bool(memo))
        await _index(tx, key)
        for transaction_id in await memos.owned(tx, user, chain_id, tx_hash):
            await _think_again(tx, user, transaction_id)

    await in_transaction(deps.pool, body)
    await deps.publisher.wake(keys.JOBS_WAKE)


async def _keep(deps: Deps, tx: Tx, key: MemoKey, memo: str, *, needed: bool) -> None:
    if not needed:
        return await memos.delete(tx, key)
    sealed = KeyRing.of(deps.settings).seal(memo, purpose="memo", owner=key[0])
    return await memos.put(tx, key, sealed, at=deps.now())


async def _index(tx: Tx, key: MemoKey) -> None:
    """Let search find what is noted now; a transaction that is still to come brings its own request."""
    user, chain_id, tx_hash, _ = key
    await outbox.request(tx, "quick", "index_rows", {"user": user, "chainId": chain_id, "txHash": tx_hash})


async def _think_again(tx: Tx, user: Address, transaction_id: str) -> None:
    await outbox.request(tx, "slow", "categorize_again", {"user": user, "transactionId": transaction_id})
