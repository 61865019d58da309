"""A simulated user: a key that is the same on every machine, and what a wallet app does with it (sign in, sign)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from store.records import Address

MNEMONIC = "test test test test test test test test test test test junk"
"""The public test phrase that anvil gives 10,000 ETH to, ten accounts of it."""
FUNDED = 10

SIGN_IN_LIFE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Person:
    """One simulated user. `address` is lower-case, `key` the private key as 0x hex, public and never worth anything."""

    index: int
    address: Address
    key: str = field(repr=False)

    @property
    def account(self) -> LocalAccount:
        """The signer of this person's transactions and messages."""
        return _account(self.key)

    @property
    def checksum(self) -> str:
        """The address as EIP-55 writes it, which a sign-in message asks for."""
        return str(self.account.address)

    def sign(self, message: str) -> str:
        """Sign a text as a wallet's personal_sign does (EIP-191); 65 bytes as 0x hex."""
        return "0x" + bytes(self.account.sign_message(encode_defunct(text=message)).signature).hex()


@cache
def person(index: int) -> Person:
    """The simulated user of a number; the first ten are anvil's own accounts, 0 being who deploys the contracts."""
    account = _from_mnemonic(index) if index < FUNDED else _account("0x" + _seed(index).hex())
    return Person(index, str(account.address).lower(), "0x" + bytes(account.key).hex())


def sign_in_message(
    who: Person,
    *,
    nonce: str,
    domain: str,
    uri: str,
    chain_id: int,
    statement: str | None = "Sign in to Expendi.",
    issued_at: datetime | None = None,
    expires_at: datetime | None = None,
    not_before: datetime | None = None,
    request_id: str | None = None,
    resources: tuple[str, ...] = (),
) -> str:
    """The EIP-4361 text that a wallet shows; by default issued now and good for ten minutes."""
    issued = issued_at or datetime.now(UTC)
    lines = [f"{domain} wants you to sign in with your Ethereum account:", who.checksum, ""]
    lines += [statement] if statement is not None else []
    lines += ["", f"URI: {uri}", "Version: 1", f"Chain ID: {chain_id}", f"Nonce: {nonce}"]
    lines += [f"Issued At: {_time(issued)}", f"Expiration Time: {_time(expires_at or issued + SIGN_IN_LIFE)}"]
    lines += [f"Not Before: {_time(not_before)}"] if not_before else []
    lines += [f"Request ID: {request_id}"] if request_id is not None else []
    lines += ["Resources:", *(f"- {resource}" for resource in resources)] if resources else []
    return "\n".join(lines)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seed(index: int) -> bytes:
    return keccak(text=f"expendi devnet person {index}")


def _from_mnemonic(index: int) -> LocalAccount:
    Account.enable_unaudited_hdwallet_features()
    account: LocalAccount = Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    return account


@cache
def _account(key: str) -> LocalAccount:
    account: LocalAccount = Account.from_key(key)
    return account
