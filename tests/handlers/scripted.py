"""A scripted chain: decoded blocks as a decoder would give them, without a node, for tests of the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from config.chains import Chain, Token, Vault
from handlers import chain_events as ce
from handlers.chain_events import ChainEvent, DecodedBlock, Fee
from store.records import Address

START = datetime(2026, 11, 1, tzinfo=UTC)
WALLET = "0x" + "aa" * 20
FACTORY = "0x" + "fa" * 20
USDC = "0x" + "cc" * 20
OTHER_TOKEN = "0x" + "dd" * 20
SHOP = "0x" + "55" * 20
VAULT = "0x" + "4e" * 20
LOCK = "0x" + "10" * 20
NOBODY = "0x" + "00" * 20
BLOCK_S = 2


def address(number: int) -> Address:
    return f"0x{number:040x}"


ALICE, BOB, CAROL = address(0xA11CE), address(0xB0B), address(0xCA401)


def make_chain(chain_id: int = 31337, **overrides: Any) -> Chain:
    facts: dict[str, Any] = {
        "name": "scripted",
        "id": chain_id,
        "rpc": ("http://127.0.0.1:1",),
        "ws": None,
        "first_block": 0,
        "confirmations": 2,
        "finality_depth": 64,
        "wallets": (WALLET,),
        "factories": (FACTORY,),
        "yield_locks": (),
        "tokens": (Token(USDC, "USDC", 6, "usd"),),
        "vaults": (),
    }
    return Chain(**{**facts, **overrides})


@dataclass
class Script:
    """Makes blocks that follow each other; `fork` changes every hash that comes after it."""

    chain_id: int = 31337
    number: int = 0
    parent: str = "0x" + "00" * 32
    time: datetime = START
    fork: str = ""
    made: list[DecodedBlock] = field(default_factory=list)

    def block(
        self, *transactions: Sequence[ChainEvent], fees: Mapping[str, Fee] | None = None, after_s: float = BLOCK_S
    ) -> DecodedBlock:
        """The next block; events of one inner sequence are one transaction, in order."""
        self.number += 1
        self.time += timedelta(seconds=after_s)
        seed = f"{self.chain_id}|{self.number}|{self.parent}|{self.fork}"
        made = DecodedBlock(
            chain_id=self.chain_id,
            number=self.number,
            hash="0x" + hashlib.sha256(seed.encode()).hexdigest(),
            parent_hash=self.parent,
            time=self.time,
            events=_numbered(seed, transactions),
            fees=fees or {},
        )
        self.parent = made.hash
        self.made.append(made)
        return made

    def back(self, depth: int, *, fork: str) -> list[DecodedBlock]:
        """Take the last `depth` blocks off; what follows has other hashes. Returns them, newest first."""
        taken = [self.made.pop() for _ in range(min(depth, len(self.made)))]
        tip = self.made[-1] if self.made else None
        self.number = tip.number if tip else 0
        self.parent = tip.hash if tip else "0x" + "00" * 32
        self.time = tip.time if tip else START
        self.fork = fork
        return taken

    def put_back(self, block: DecodedBlock) -> DecodedBlock:
        """A block that was taken off comes back as it was."""
        assert block.parent_hash == self.parent
        self.number, self.parent, self.time = block.number, block.hash, block.time
        self.made.append(block)
        return block


def _numbered(seed: str, transactions: Sequence[Sequence[ChainEvent]]) -> tuple[ChainEvent, ...]:
    """Give events their place: an event that names a transaction hash keeps it (included again elsewhere)."""
    numbered: list[ChainEvent] = []
    for index, events in enumerate(transactions):
        made = "0x" + hashlib.sha256(f"{seed}|{index}".encode()).hexdigest()
        for n, event in enumerate(events):
            changes: dict[str, Any] = {"tx_hash": event.tx_hash or made, "n": n, "log_index": len(numbered)}
            numbered.append(_replace(event, changes))
    return tuple(numbered)


def _replace(event: ChainEvent, changes: Mapping[str, Any]) -> ChainEvent:
    from dataclasses import replace

    return replace(event, **changes)


def at(emitter: Address = WALLET, *, tx: str = "") -> dict[str, Any]:
    """Where an event comes from, before its block gives it a place."""
    return {"tx_hash": tx, "n": 0, "log_index": 0, "emitter": emitter}


def listed_vault(**overrides: Any) -> Vault:
    facts: dict[str, Any] = {
        "address": VAULT,
        "protocol": "Morpho",
        "asset": USDC,
        "name": "Steady USDC",
        "decimals": 6,
    }
    return Vault(**{**facts, **overrides})


def invested(user: Address, assets: int, shares: int, *, vault: Address = VAULT) -> list[ChainEvent]:
    """What a vault's deposit says: the token's leg, the shares that are made, the deposit."""
    return [
        transfer(user, vault, assets),
        ce.ShareTransfer(**at(vault), sender=NOBODY, recipient=user, shares=shares),
        ce.VaultDeposit(**at(vault), sender=user, owner=user, asset=USDC, assets=assets, shares=shares),
    ]


def divested(user: Address, assets: int, shares: int, *, vault: Address = VAULT) -> list[ChainEvent]:
    """What a vault's withdrawal says."""
    return [
        ce.ShareTransfer(**at(vault), sender=user, recipient=NOBODY, shares=shares),
        transfer(vault, user, assets),
        ce.VaultWithdraw(**at(vault), sender=user, receiver=user, owner=user, asset=USDC, assets=assets, shares=shares),
    ]


def handed(sender: Address, recipient: Address, shares: int, *, vault: Address = VAULT) -> ce.ShareTransfer:
    return ce.ShareTransfer(**at(vault), sender=sender, recipient=recipient, shares=shares)


def locked(user: Address, lock_id: int, principal: int, *, label: str = "a house") -> list[ChainEvent]:
    made = ce.YieldLockCreated(
        **at(LOCK),
        user=user,
        lock_id=lock_id,
        vault=VAULT,
        token=USDC,
        principal=principal,
        shares=principal,
        unlock_time=int(START.timestamp()) + 86_400,
        label=label,
    )
    return [transfer(user, LOCK, principal), made]


def unlocked(user: Address, lock_id: int, assets: int, *, fee: int = 0) -> list[ChainEvent]:
    paid = ce.YieldLockWithdrawn(
        **at(LOCK), user=user, lock_id=lock_id, total_assets=assets, fee=fee, net_assets=assets - fee
    )
    return [transfer(LOCK, user, assets - fee), paid]


def operation(
    user: Address, kind: int, amount: int, *, account: int = 1, identifier: bytes = b"p" * 32, token: Address = USDC
) -> ce.AccountOperation:
    return ce.AccountOperation(
        **at(), user=user, account_type=account, operation_type=kind, identifier=identifier, amount=amount, token=token
    )


def kept(user: Address, amount: int, *, token: Address = USDC) -> ce.FeeCollection:
    return ce.FeeCollection(**at(), user=user, fee_type=0, amount=amount, token=token)


def created(user: Address, name: str, limit: int = 0, **where: Any) -> ce.BucketCreated:
    return ce.BucketCreated(**at(**where), user=user, name=name.encode(), monthly_limit=limit)


def deposit(user: Address, amount: int, *, token: Address = USDC, **where: Any) -> ce.FundsDeposited:
    return ce.FundsDeposited(**at(**where), user=user, amount=amount, token=token)


def fund(user: Address, name: str, amount: int, *, token: Address = USDC, **where: Any) -> ce.BucketFunded:
    return ce.BucketFunded(**at(**where), user=user, name=name.encode(), amount=amount, token=token)


def spend(
    user: Address,
    name: str,
    amount: int,
    *,
    recipient: Address = SHOP,
    token: Address = USDC,
    spender: Address | None = None,
    **where: Any,
) -> ce.SpentFromBucket:
    return ce.SpentFromBucket(
        **at(**where),
        user=user,
        name=name.encode(),
        amount=amount,
        recipient=recipient,
        token=token,
        spender=spender or user,
    )


def transfer(
    sender: Address, recipient: Address, amount: int, *, token: Address = USDC, tx: str = ""
) -> ce.TokenTransfer:
    return ce.TokenTransfer(**at(token, tx=tx), sender=sender, recipient=recipient, amount=amount)
