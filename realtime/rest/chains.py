"""The chains of this installation and how far each is."""

from __future__ import annotations

from collections.abc import Mapping

from handlers import history
from handlers.history import ChainState
from handlers.rules.periods import iso
from realtime.rest import shapes
from realtime.rest.api import endpoint
from realtime.rest.call import Call


@endpoint("GET", "/v1/chains", tag="chains", answers=shapes.Chains, access="public", tagged=True)
async def chains(call: Call) -> Mapping[str, object]:
    """List the chains, their heights and their tokens.

    A transaction is confirmed up to `confirmed` and final up to `finalized`.
    """
    data = [_resource(state) for state in await history.chains(call.deps)]
    return {"data": data, "hasMore": False, "nextCursor": None}


def _resource(state: ChainState) -> Mapping[str, object]:
    chain, cursor, heights = state.chain, state.cursor, state.heights
    return {
        "chainId": chain.id,
        "name": chain.name,
        "head": heights.head if heights else None,
        "confirmed": heights.confirmed if heights else None,
        "finalized": heights.finalized if heights else None,
        "lagBlocks": heights.lag_blocks if heights else None,
        "headTime": iso(cursor.block_time) if cursor else None,
        "confirmations": chain.confirmations,
        "tokens": [
            {
                "address": token.address,
                "symbol": token.symbol,
                "decimals": token.decimals,
                "isUsd": token.price == "usd",
            }
            for token in chain.tokens
        ],
    }


ROUTES = (chains,)
