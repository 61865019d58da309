"""What contracts say, encoded by eth_abi: raw logs for tests that need no chain."""

from __future__ import annotations

from dataclasses import dataclass, field

from eth_abi.abi import encode

from config import abi
from tests.factories import make_address

ETH = "0x" + "0" * 40
USDC = make_address("usdc")
WALLET = make_address("wallet")
FACTORY = make_address("factory")
ALICE = make_address("alice")
BOB = make_address("bob")
SHOP = make_address("shop")


@dataclass(frozen=True)
class Said:
    """A log without its place."""

    address: str
    topics: tuple[str, ...]
    data: str


@dataclass(frozen=True)
class Tx:
    """A transaction and what it made contracts say."""

    logs: tuple[Said, ...] = ()
    sender: str = ALICE
    to: str | None = WALLET
    type: int = 2
    gas_used: int = 50_000
    gas_price: int = 1_000_000_000
    l1_fee: int = 0
    salt: str = field(default="")


def topic(value: str | int) -> str:
    return "0x" + (hex(value)[2:] if isinstance(value, int) else value[2:]).rjust(64, "0")


def say(emitter: str, signature: str, indexed: tuple[str | int, ...] = (), /, **data: object) -> Said:
    """A log of an event; `data` maps ABI types, with a digit to tell equal ones apart (`uint256_2`), to values."""
    types = [name.partition("_")[0] for name in data]
    topics = (signature, *map(topic, indexed))
    return Said(emitter, topics, "0x" + encode(types, list(data.values())).hex())


def deposited(user: str = ALICE, amount: int = 100, *, wallet: str = WALLET, token: str = USDC) -> Said:
    return say(wallet, abi.FUNDS_DEPOSITED, (user,), uint256=amount, address=token)


def spent(
    user: str = ALICE, amount: int = 5, *, name: bytes = b"food", wallet: str = WALLET, recipient: str = SHOP
) -> Said:
    return say(wallet, abi.SPENT_FROM_BUCKET, (user,), bytes=name, uint256=amount, address=recipient, address_2=USDC)


def transferred(sender: str, recipient: str, amount: int = 7, *, token: str = USDC) -> Said:
    return say(token, abi.TRANSFER, (sender, recipient), uint256=amount)


def wallet_created(user: str, wallet: str, *, factory: str = FACTORY) -> Said:
    return say(factory, abi.WALLET_CREATED, (user, wallet), uint256=0)


def wallet_registered(user: str, wallet: str, *, factory: str = FACTORY) -> Said:
    return say(factory, abi.WALLET_REGISTERED, (user, wallet))
