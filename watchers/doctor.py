"""`python -m watchers doctor`: does a node of each chain answer, is it the right chain, and what to do when not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp

from config.chains import Chain
from store.chain import client_version, heights
from store.rpc import Rpc, RpcError, WrongChain, host


@dataclass(frozen=True, slots=True)
class Finding:
    """How one chain is; `url` shows no credentials, `advice` is empty when there is nothing to do."""

    name: str
    url: str
    version: str
    ok: bool
    advice: str


async def examine_all(chains: Iterable[Chain], *, timeout_s: float) -> list[Finding]:
    """One finding per chain, in order; all are asked at once."""
    async with aiohttp.ClientSession() as session:
        return list(await asyncio.gather(*(_examine(chain, session, timeout_s) for chain in chains)))


async def _examine(chain: Chain, session: aiohttp.ClientSession, timeout_s: float) -> Finding:
    """The first url that serves the chain; what is wrong with the others is advice."""
    wrong: list[str] = []
    found: tuple[str, str] | None = None
    for url in chain.rpc:
        rpc = Rpc([url], timeout_s, session, chain_id=chain.id)
        try:
            await heights(rpc, finality_depth=chain.finality_depth)
            found = found or (host(url), await client_version(rpc))
        except (RpcError, WrongChain) as error:
            wrong.append(_advice(chain, url, error))
    name, version = found or (host(chain.rpc[0]), "")
    return Finding(chain.name, name, version, found is not None, " ".join(wrong))


def _advice(chain: Chain, url: str, error: RpcError | WrongChain) -> str:
    row = f"row {chain.name} of the chain table"
    if isinstance(error, WrongChain):
        return f"{host(url)} serves another chain than {chain.id}: correct `id` or `rpc` in {row}."
    if error.kind in {"transport", "timeout"}:
        return f"{host(url)} does not answer ({error.detail}): start the node, or correct `rpc` in {row}."
    if error.kind == "http":
        return f"{host(url)} refuses ({error.detail}): check the key and the plan in `rpc` of {row}."
    return f"{host(url)} does not work ({error.kind}: {error.detail}): name another node in `rpc` of {row}."
