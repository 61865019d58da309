"""What a sign-in message must say to be believed; handlers/auth checks signature and nonce beside this."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import SplitResult, urlsplit

from store.records import Address

CLOCK_SKEW = timedelta(seconds=60)
"""How far a client's clock may be off: phones that lost their time server are within this."""

DEFAULT_PORTS = {"http": 80, "https": 443}
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInMessage:
    """An EIP-4361 message of version 1, as the wallet showed it to the user; times are aware UTC."""

    scheme: str | None = None
    domain: str
    address: Address
    statement: str | None = None
    uri: str
    chain_id: int
    nonce: str
    issued_at: datetime
    expiration_time: datetime | None = None
    not_before: datetime | None = None
    request_id: str | None = None
    resources: tuple[str, ...] | None = None
    """None: no such line; (): the line with nothing below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What this installation accepts: its domain, the URIs beside it, its chains and the life of a nonce."""

    domain: str
    uris: tuple[str, ...]
    chain_ids: Collection[int]
    nonce_life: timedelta
    loopback: bool
    """Also accept a page served from the developer's own machine, on any port."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message is not believed: a word for the audit log and a sentence for the caller."""

    reason: str
    sentence: str


def refusal(message: SignInMessage, policy: Policy, *, now: datetime) -> Refusal | None:
    """Say what is wrong with a message at the time `now`; None when nothing is."""
    if message.scheme is not None and message.scheme.lower() not in DEFAULT_PORTS:
        return Refusal("scheme", "The message names a scheme other than http and https.")
    if not _is_our_domain(message.domain, policy):
        return Refusal("domain", f"The message is for another domain; sign one for {policy.domain}.")
    if not _is_our_uri(message.uri, policy):
        return Refusal("uri", "The message names a URI that is not ours.")
    if message.chain_id not in policy.chain_ids:
        return Refusal("chain_id", f"Chain {message.chain_id} is not served here; GET /v1/chains lists those that are.")
    return _late_or_early(message, policy.nonce_life, now)


def _late_or_early(message: SignInMessage, life: timedelta, now: datetime) -> Refusal | None:
    if message.issued_at > now + CLOCK_SKEW:
        return Refusal("issued_at", "The message was issued in the future; check the clock of the device.")
    if message.issued_at < now - life - CLOCK_SKEW:
        return Refusal("issued_at", "The message was issued too long ago; ask for a new nonce and sign again.")
    if message.expiration_time is not None and message.expiration_time <= now:
        return Refusal("expired", "The message has expired; ask for a new nonce and sign again.")
    if message.not_before is not None and message.not_before > now:
        return Refusal("not_before", "The message is not valid yet.")
    return None


def _is_our_domain(domain: str, policy: Policy) -> bool:
    return domain.lower() == policy.domain.lower() or (policy.loopback and _is_loopback(domain))


def _is_our_uri(uri: str, policy: Policy) -> bool:
    parts = _split(uri)
    if parts is None:
        return False
    if policy.loopback and _is_loopback(parts.netloc):
        return True
    if policy.uris:
        return any(_is_under(parts, urlsplit(listed)) for listed in policy.uris)
    return _authority(parts) == _authority(urlsplit(f"{parts.scheme}://{policy.domain}"))


def _split(uri: str) -> SplitResult | None:
    """Parts of an http(s) URI without user information: `https://expendi.example@evil.example` is evil's."""
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in DEFAULT_PORTS and parts.hostname and "@" not in parts.netloc else None


def _authority(parts: SplitResult) -> tuple[str | None, int]:
    return parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]


def _is_under(parts: SplitResult, listed: SplitResult) -> bool:
    if parts.scheme != listed.scheme or _authority(parts) != _authority(listed):
        return False
    folder = listed.path.rstrip("/")
    return parts.path in {folder, listed.path} or parts.path.startswith(folder + "/")


def _is_loopback(authority: str) -> bool:
    host, colon, port = authority.lower().rpartition(":")
    if not colon or port.endswith("]"):  # no port: the colon, if any, belongs to [::1]
        host, port = authority.lower(), ""
    return host in LOOPBACK_HOSTS and (not colon or port == "" or port.isdecimal())
