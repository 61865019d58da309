"""A user's wallet for tests: a key, its address, and sign-in messages as wallets write them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import coincurve
from eth_utils.crypto import keccak

from handlers.rules.periods import iso
from handlers.rules.sign_in import SignInMessage
from realtime.siwe import PREAMBLE, checksummed, personal_hash, recover


@dataclass(frozen=True)
class Wallet:
    key: coincurve.PrivateKey = field(default_factory=coincurve.PrivateKey)

    @property
    def address(self) -> str:
        return "0x" + keccak(self.key.public_key.format(compressed=False)[1:])[-20:].hex()

    def sign(self, text: str) -> str:
        signature = self.key.sign_recoverable(personal_hash(text.encode()), hasher=None)
        return "0x" + signature[:64].hex() + bytes([signature[64] + 27]).hex()

    def message(self, nonce: str, **changes: Any) -> str:
        facts: dict[str, Any] = {
            "domain": "localhost",
            "address": self.address,
            "uri": "http://localhost/login",
            "chain_id": 31337,
            "nonce": nonce,
            "issued_at": datetime.now(UTC),
            "statement": "Sign in to Expendi.",
            "expiration_time": datetime.now(UTC) + timedelta(minutes=5),
        }
        return text_of(SignInMessage(**{**facts, **changes}))


async def signed_by_key(text: str, signature: bytes, *, address: str, chain_id: int) -> bool:
    """The signature check of sign-in where no account is a contract."""
    return recover(text.encode(), signature) == address


def text_of(message: SignInMessage) -> str:
    """The message as wallets write it: the inverse of realtime.siwe.parse."""
    scheme = f"{message.scheme}://" if message.scheme is not None else ""
    lines = [scheme + message.domain + PREAMBLE, checksummed(message.address), ""]
    lines += [message.statement] if message.statement is not None else []
    lines += ["", f"URI: {message.uri}", "Version: 1", f"Chain ID: {message.chain_id}", f"Nonce: {message.nonce}"]
    lines += [f"Issued At: {_time(message.issued_at)}"]
    lines += [f"Expiration Time: {_time(message.expiration_time)}"] if message.expiration_time else []
    lines += [f"Not Before: {_time(message.not_before)}"] if message.not_before else []
    lines += [f"Request ID: {message.request_id}"] if message.request_id is not None else []
    if message.resources is not None:
        lines += ["Resources:", *(f"- {resource}" for resource in message.resources)]
    return "\n".join(lines)


def _time(moment: datetime) -> str:
    return iso(moment) if moment.microsecond % 1000 == 0 else moment.isoformat().replace("+00:00", "Z")
