"""What users hold at their own address when the ledger begins to follow it: read before the block is applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from config.chains import Chain
from store.chain import token_balances
from store.records import ZERO_ADDRESS, Address, BlockRef
from store.rpc import Rpc, RpcError

logger = structlog.get_logger(__name__)

STATE_DEPTH = 64
"""Blocks behind the head up to which balances are read: nodes keep the state of the last 128 blocks."""


async def read_openings(
    rpc: Rpc, chain: Chain, block: BlockRef, users: Sequence[Address]
) -> Mapping[Address, Mapping[Address, int]]:
    """User -> listed token or vault -> balanceOf at the end of the block, in one batch.

    Empty when the node refuses to look at that block's state: these users open with a later one. A token whose contract
    does not answer is left out.
    """
    tokens = [token.address for token in chain.tokens if token.address != ZERO_ADDRESS]
    tokens += [vault.address for vault in chain.vaults]  # a share is a token too
    if not users:
        return {}
    try:
        held = await token_balances(rpc, block, [(user, token) for user in users for token in tokens])
    except RpcError as error:
        if error.kind != "jsonrpc":
            raise
        logger.warning("balances_refused", chain=chain.id, number=block.number, error=str(error), users=len(users))
        return {}
    if len(held) < len(users) * len(tokens):
        silent = {token for user in users for token in tokens if (user, token) not in held}
        logger.error("token_without_balance", chain=chain.id, number=block.number, contracts=sorted(silent))
    return {user: {token: held[user, token] for token in tokens if (user, token) in held} for user in users}
