"""What people do on the contracts, as calls that are not yet sent: pure, so that load is made of them in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils.crypto import keccak

from store.records import ZERO_ADDRESS, Address
from watchers.devnet.contracts import Call, artifact

ETH = ZERO_ADDRESS
"""The chain's own coin in wallet calls and events."""

MAX_UINT256 = 2**256 - 1
_BALANCES_SLOT, _ALLOWANCES_SLOT = 0, 1  # of MockUSDC
_SPEND_GAS = 250_000
_BATCH_GAS = (100_000, 110_000)  # once, and for each spend in it
_CREATE_WALLET_GAS = 6_000_000

Name = str | bytes
"""A bucket's name; bytes where it shall not be UTF-8."""


@dataclass(frozen=True, slots=True)
class Payment:
    """One spend of a batch, in base units of `token` (None: the devnet's USDC); `user` None is who the batch is for."""

    bucket: Name
    amount: int
    recipient: Address
    token: Address | None = None
    user: Address | None = None
    payload: bytes = b""


def create_wallet(factory: Address, *, salt: int = 0) -> Call:
    """Have the factory deploy the sender's own wallet."""
    return artifact("WalletFactory").call(factory, "createWallet", salt, gas=_CREATE_WALLET_GAS)


def register_wallet(factory: Address, *, wallet: Address) -> Call:
    """Tell the factory of an existing wallet as the sender's own."""
    return artifact("WalletFactory").call(factory, "registerWallet", wallet)


def create_bucket(wallet: Address, name: Name, limit: int) -> Call:
    """Create the sender's bucket; limit in raw units per rolling 30 days, 0 for none."""
    return _wallet(wallet, "createBucket", name, limit)


def update_bucket(wallet: Address, name: Name, limit: int, *, active: bool) -> Call:
    """Set limit and activity of the sender's bucket."""
    return _wallet(wallet, "updateBucket", name, limit, active)


def deposit(wallet: Address, amount: int, *, token: Address) -> Call:
    """Pay into the sender's unallocated funds."""
    if token == ETH:
        return artifact("BudgetWallet").call(wallet, "depositETH", value=amount, gas=_SPEND_GAS)
    return _wallet(wallet, "depositToken", token, amount)


def fund(wallet: Address, name: Name, amount: int, *, token: Address) -> Call:
    """Move the sender's unallocated funds into a bucket."""
    return _wallet(wallet, "fundBucket", name, amount, token)


def spend(wallet: Address, payment: Payment, *, user: Address, token: Address) -> Call:
    """Pay from a bucket of `user`; the sender is the user or that bucket's delegate."""
    who, name, amount, recipient, coin, payload = _spend_fields(payment, user, token)
    return _wallet(wallet, "spendFromBucket", who, name, amount, recipient, coin, payload)


def batch_spend(wallet: Address, payments: Sequence[Payment], *, user: Address, token: Address) -> Call:
    """Pay many times in one transaction; the sender is the user or delegate of every bucket."""
    base, each = _BATCH_GAS
    fields = [_spend_fields(payment, user, token) for payment in payments]
    return artifact("BudgetWallet").call(wallet, "batchSpend", fields, gas=base + each * len(fields))


def move(wallet: Address, source: Name, target: Name, amount: int, *, token: Address) -> Call:
    """Move money between two buckets of the sender."""
    return _wallet(wallet, "transferBetweenBuckets", source, target, amount, token)


def delegate(wallet: Address, name: Name, *, to: Address, allowed: bool) -> Call:
    """Let `to` spend from the sender's bucket, or no longer."""
    return _wallet(wallet, "addDelegate" if allowed else "removeDelegate", to, name)


def withdraw(wallet: Address, amount: int, recipient: Address, *, token: Address) -> Call:
    """Pay out of the sender's unallocated funds."""
    return _wallet(wallet, "withdrawUnallocated", token, amount, recipient)


def emergency_withdraw(wallet: Address, *, token: Address) -> Call:
    """Pay the sender everything of one token."""
    return _wallet(wallet, "emergencyWithdraw", token)


def transfer(token: Address, recipient: Address, amount: int) -> Call:
    """Send tokens from the sender's own address, no wallet involved."""
    return artifact("MockUSDC").call(token, "transfer", recipient, amount)


def mint(token: Address, recipient: Address, amount: int) -> Call:
    """Make tokens out of nothing, with the Transfer log that says so."""
    return artifact("MockUSDC").call(token, "mint", recipient, amount)


def undecodable_logs(user: Address) -> dict[str, tuple[list[str], str]]:
    """Logs with SpentFromBucket's topic that can't be decoded, as (topics, data) for Impostor's `raw`, by fault."""
    topics = [artifact("BudgetWallet").topic("SpentFromBucket"), "0x" + user[2:].rjust(64, "0")]
    head = [4 * 32, 1, int(user, 16), 0, 3]  # offset of the name, amount, recipient, token, length of the name
    good = "0x" + b"".join(map(_word, head)).hex() + b"fun".ljust(32, b"\0").hex()
    far, huge = 2, 2 + 64 * 4  # where offset and length begin, after the 0x
    return {
        "no data": (topics, "0x"),
        "cut short": (topics, good[: 2 + 64 * 4 + 2]),
        "offset far outside": (topics, good[:far] + "f" * 64 + good[far + 64 :]),
        "length far outside": (topics, good[:huge] + "f" * 64 + good[huge + 64 :]),
        "no user": (topics[:1], good),
        "address too wide": (topics, good[: 2 + 64 * 2] + "f" * 64 + good[2 + 64 * 3 :]),
        "user too wide": ([topics[0], "0x" + "f" * 64], good),
    }


def balance_slot(account: Address) -> str:
    """Storage key (hex) of an account's balance in MockUSDC."""
    return _slot(account, _word(_BALANCES_SLOT))


def allowance_slot(account: Address, spender: Address) -> str:
    """Storage key (hex) of what `spender` may take from an account in MockUSDC."""
    return _slot(spender, bytes.fromhex(_slot(account, _word(_ALLOWANCES_SLOT))[2:]))


def word(value: int) -> str:
    """A storage word, 32 bytes as hex."""
    return "0x" + _word(value).hex()


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _slot(key: Address, base: bytes) -> str:
    return "0x" + keccak(_word(int(key, 16)) + base).hex()


def _wallet(wallet: Address, function: str, *args: object) -> Call:
    return artifact("BudgetWallet").call(wallet, function, *args, gas=_SPEND_GAS)


def _spend_fields(
    payment: Payment, user: Address, token: Address
) -> tuple[Address, Name, int, Address, Address, bytes]:
    who, coin = payment.user or user, payment.token or token
    return (who, payment.bucket, payment.amount, payment.recipient, coin, payment.payload)
