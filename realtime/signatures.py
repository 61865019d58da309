"""Whether an account stands behind a signed text: its key, recovered here, or its contract, asked on its chain."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import aiohttp
import structlog

from config.chains import Chain
from handlers.errors import Unavailable
from realtime.siwe import personal_hash, recover
from store.records import Address
from store.rpc import Rpc, RpcError, WrongChain
from store.signatures import is_valid_signature

logger = structlog.get_logger(__name__)

NODE_S: Final = 3.0
"""Time one node may take to answer (s): a person waits, and there are other nodes."""
CHECK_S: Final = 10.0
"""Time a check may take over all nodes (s); below the 15 s of a request, so that its nonce is not spent unheard."""
AT_ONCE: Final = 16
"""Questions to nodes at a time: strangers may make us ask, and not without end."""
RETRY_S: Final = 5.0
"""When to try again (s)."""


class Signatures:
    """The signature check of sign-in (handlers.auth.SignatureCheck), with one JSON-RPC client per chain when needed."""

    def __init__(
        self, chains: Mapping[int, Chain], session: aiohttp.ClientSession, *, timeout_s: float = NODE_S
    ) -> None:
        """`timeout_s` bounds one question to one node."""
        self._chains = chains
        self._session = session
        self._timeout_s = timeout_s
        self._rpcs: dict[int, Rpc] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, text: str, signature: bytes, *, address: Address, chain_id: int) -> bool:
        """Whether `address` signed `text` (EIP-191); raises Unavailable when the chain must be asked and can't be."""
        message = text.encode()
        if recover(message, signature) == address:
            return True
        if chain_id not in self._chains:
            return False
        try:
            async with asyncio.timeout(CHECK_S), self._turns:
                return await is_valid_signature(self._rpc(chain_id), address, personal_hash(message), signature)
        except (RpcError, WrongChain, TimeoutError) as error:
            if isinstance(error, WrongChain):
                self._rpcs.pop(chain_id, None)  # it has dropped its urls: the next one checks them anew
            logger.warning("signature_unchecked", chain=chain_id, error=str(error) or type(error).__name__)
            raise Unavailable(
                f"No node of chain {chain_id} answers, so a contract wallet's signature can't be checked; "
                "send the same message again.",
                retry_after_s=RETRY_S,
            ) from error

    def _rpc(self, chain_id: int) -> Rpc:
        if chain_id not in self._rpcs:
            self._rpcs[chain_id] = Rpc(self._chains[chain_id].rpc, self._timeout_s, self._session, chain_id=chain_id)
        return self._rpcs[chain_id]
