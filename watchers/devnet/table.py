"""The devnet's row of the chain table: written when the contracts are on the chain, read by product and demo."""

from __future__ import annotations

from pathlib import Path

from config.chains import Chain, load_chains
from watchers.devnet.contracts import Deployment, deploy_all
from watchers.devnet.node import Node

NAME = "devnet"
CONFIRMATIONS = 2
"""Blocks until a devnet transaction shows as confirmed: soon enough to be seen in the demo."""
FINALITY_DEPTH = 64
"""Blocks after which a reorg is not believed: deeper than any that a test makes by mistake."""

_ROW = """\
# The devnet's chain table, written by `python -m watchers.devnet deploy`.
[[chain]]
name = "{name}"
id = {id}
rpc = ["{rpc}"]
{ws}first_block = {first_block}
confirmations = {confirmations}
finality_depth = {finality_depth}
wallets = ["{wallet}"]
factories = ["{factory}"]
yield_locks = ["{lock}"]

[[chain.token]]
address = "{usdc}"
symbol = "USDC"
decimals = 6
price = "usd"

[[chain.vault]]
address = "{vault}"
protocol = "Devnet"
asset = "{usdc}"
name = "Mock Vault"
decimals = 6
risk = "low"
"""


async def deploy_to_table(rpc: str, path: Path, *, ws: str | None = None, first_block: int | None = None) -> Deployment:
    """Put the contracts on the chain and write their table; contracts of a table that is there already are kept.

    They are kept when the running chain has the table's id and code at every address; only the urls are written anew.
    """
    known = _known(path)
    async with Node(rpc) as node:
        found = known if known and await _stands(node, known) else await deploy_all(node, first_block=first_block)
    _write(path, render(found, rpc=rpc, ws=ws))
    return found


def render(found: Deployment, *, rpc: str, ws: str | None) -> str:
    """The table as TOML."""
    return _ROW.format(
        name=NAME,
        id=found.chain_id,
        rpc=rpc,
        ws=f'ws = "{ws}"\n' if ws else "",
        first_block=found.first_block,
        confirmations=CONFIRMATIONS,
        finality_depth=FINALITY_DEPTH,
        wallet=found.wallet,
        factory=found.factory,
        usdc=found.usdc,
        vault=found.vault,
        lock=found.lock,
    )


def devnet_row(path: Path) -> Chain:
    """The first chain of a table that has every contract of a devnet; raise LookupError when none has."""
    for chain in load_chains(path).values():
        if chain.wallets and chain.factories and chain.tokens and chain.vaults and chain.yield_locks:
            return chain
    raise LookupError(
        f"{path}: no chain has a wallet, a factory, a token, a vault and a yield lock; "
        "`python -m watchers.devnet deploy` makes one"
    )


def deployment(chain: Chain) -> Deployment:
    """Where a devnet row says that the contracts are."""
    return Deployment(
        wallet=chain.wallets[0],
        factory=chain.factories[0],
        usdc=chain.tokens[0].address,
        vault=chain.vaults[0].address,
        lock=chain.yield_locks[0],
        chain_id=chain.id,
        first_block=chain.first_block,
    )


def _known(path: Path) -> Deployment | None:
    """What an earlier deploy wrote; None where nothing did, or one that knew fewer contracts."""
    if not path.exists():
        return None
    try:
        return deployment(devnet_row(path))
    except LookupError:
        if any(chain.name == NAME for chain in load_chains(path).values()):
            return None
        raise  # somebody's own table is not written over


async def _stands(node: Node, known: Deployment) -> bool:
    return known.chain_id == await node.chain_id() and await node.has_code(known.addresses)


def _write(path: Path, text: str) -> None:
    """Write so that whoever reads the table meanwhile sees the old one or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
