"""EIP-4361 messages and their signatures, read strictly and without I/O: the way in of every user.

The grammar is the EIP's ABNF with RFC 3986 and RFC 3339 below it, all of it ASCII. Every pattern is linear (no repeat
can give a character to its neighbour), so a hostile message costs no more than its length, 4 KiB at most.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import coincurve
from eth_utils.crypto import keccak

from handlers.rules.sign_in import SignInMessage
from store.records import Address

T = TypeVar("T")

MAX_LENGTH: Final = 4096
"""Longest message (characters); wallets show one screen, and the longest seen in the wild is below 1 KiB."""

PREAMBLE: Final = " wants you to sign in with your Ethereum account:"

_PCHAR = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})"
_AUTHORITY = (
    r"(?:(?P<user>(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*)@)?"
    r"(?P<host>\[(?P<literal>[^\[\]]*)\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)"
    r"(?::(?P<port>[0-9]*))?"
)
_DOMAIN = re.compile(_AUTHORITY)
_URI = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+\-.]*):"
    rf"(?://{_AUTHORITY}(?:/{_PCHAR}*)*|/(?:{_PCHAR}+(?:/{_PCHAR}*)*)?|{_PCHAR}+(?:/{_PCHAR}*)*|)"
    rf"(?:\?(?:{_PCHAR}|[/?])*)?(?:\#(?:{_PCHAR}|[/?])*)?"
)
_FUTURE_LITERAL = re.compile(r"[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+")
_HEADER = re.compile(r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+\-.]*)://)?(?P<domain>[^/?#\s]+)")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_STATEMENT = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;= ]+")
_VERSION = re.compile("1")
_DIGITS = re.compile(r"[0-9]+")
_NONCE = re.compile(r"[A-Za-z0-9]{8,}")
_REQUEST_ID = re.compile(rf"{_PCHAR}*")
_TIME = re.compile(
    r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})[Tt](?P<clock>[0-9]{2}:[0-9]{2}):(?P<second>[0-9]{2})"
    r"(?:\.(?P<fraction>[0-9]+))?(?:[Zz]|(?P<offset>[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))"
)

_HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Half of secp256k1's order: of the two signatures (s and order - s) only the lower is accepted, so none has a twin."""

SIGNATURE_LENGTH: Final = 65


class MalformedMessage(ValueError):
    """The text is no EIP-4361 message; the message of the error says where it departs from the grammar."""


def parse(text: str) -> SignInMessage:
    """Read a message in one pass over its lines; raise MalformedMessage with the reason."""
    if len(text) > MAX_LENGTH:
        raise MalformedMessage(f"the message is longer than {MAX_LENGTH} characters")
    if not text.isascii():
        raise MalformedMessage("the message holds characters outside ASCII")
    lines = _Lines(text)
    scheme, domain = _header(lines.take())
    address = _address(lines.take())
    lines.blank("after the address")
    statement = _statement(lines)
    uri = _checked_uri(lines.field("URI"), "URI")
    _match(_VERSION, lines.field("Version"), "the version is not 1")
    chain_id = int(_match(_DIGITS, lines.field("Chain ID"), "the chain id is not a number")[0])
    nonce = _match(_NONCE, lines.field("Nonce"), "the nonce is not 8 or more letters and digits")[0]
    issued_at = _time(lines.field("Issued At"), "Issued At")
    expiration_time = lines.optional("Expiration Time", _time)
    not_before = lines.optional("Not Before", _time)
    request_id = lines.optional("Request ID", _request_id)
    resources = _resources(lines)
    lines.end()
    return SignInMessage(
        scheme=scheme,
        domain=domain,
        address=address,
        statement=statement,
        uri=uri,
        chain_id=chain_id,
        nonce=nonce,
        issued_at=issued_at,
        expiration_time=expiration_time,
        not_before=not_before,
        request_id=request_id,
        resources=resources,
    )


class _Lines:
    """The lines of a message, taken from the front; only LF ends a line."""

    def __init__(self, text: str) -> None:
        self._rest: Iterator[str] = iter(text.split("\n"))
        self._next: str | None = next(self._rest)

    def take(self) -> str:
        line = self._next
        if line is None:
            raise MalformedMessage("the message ends too early")
        self._next = next(self._rest, None)
        return line

    def take_if(self, prefix: str) -> str | None:
        """The next line without `prefix`, or None when it begins otherwise."""
        if self._next is None or not self._next.startswith(prefix):
            return None
        return self.take().removeprefix(prefix)

    def blank(self, where: str) -> None:
        if self.take() != "":
            raise MalformedMessage(f"an empty line is missing {where}")

    def field(self, name: str) -> str:
        value = self.take_if(f"{name}: ")
        if value is None:
            raise MalformedMessage(f"a line '{name}: ' is missing where it belongs")
        return value

    def optional(self, name: str, read: Callable[[str, str], T]) -> T | None:
        value = self.take_if(f"{name}: ")
        return None if value is None else read(value, name)

    def end(self) -> None:
        if self._next is not None:
            raise MalformedMessage("something follows that does not belong there")


def _match(pattern: re.Pattern[str], value: str, reason: str) -> re.Match[str]:
    match = pattern.fullmatch(value)
    if match is None:
        raise MalformedMessage(reason)
    return match


def _header(line: str) -> tuple[str | None, str]:
    if not line.endswith(PREAMBLE):
        raise MalformedMessage(f"the first line does not end in '{PREAMBLE.strip()}'")
    match = _match(_HEADER, line.removesuffix(PREAMBLE), "the first line does not begin with a domain")
    domain = match["domain"]
    _check_authority(_match(_DOMAIN, domain, "the domain is no authority of RFC 3986"), "the domain")
    return match["scheme"], domain


def _address(line: str) -> Address:
    address = _match(_ADDRESS, line, "the second line is not an address (0x and 40 hex digits)")[0]
    digits = address[2:]
    if digits not in {digits.lower(), digits.upper()} and address != checksummed(address.lower()):
        raise MalformedMessage("the address has mixed case but not its EIP-55 checksum")
    return address.lower()


def _statement(lines: _Lines) -> str | None:
    line = lines.take()
    if line == "":
        return None
    _match(_STATEMENT, line, "the statement holds a character that EIP-4361 does not allow")
    lines.blank("after the statement")
    return line


def _checked_uri(value: str, name: str) -> str:
    match = _match(_URI, value, f"{name} is no URI of RFC 3986")
    _check_authority(match, name)
    return value


def _check_authority(match: re.Match[str], name: str) -> None:
    literal = match["literal"]
    if literal is None or _FUTURE_LITERAL.fullmatch(literal):
        return
    try:
        if "%" in literal:  # a zone: Python takes it, RFC 3986 does not
            raise ValueError(literal)
        ipaddress.IPv6Address(literal)
    except ValueError:
        raise MalformedMessage(f"{name} holds brackets around something that is no IPv6 address") from None


def _time(value: str, name: str) -> datetime:
    match = _match(_TIME, value, f"{name} is no time of RFC 3339")
    leap = match["second"] == "60"
    second = "59" if leap else match["second"]
    fraction = (match["fraction"] or "0")[:6].ljust(6, "0")
    text = f"{match['day']}T{match['clock']}:{second}.{fraction}{match['offset'] or '+00:00'}"
    try:
        time = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise MalformedMessage(f"{name} is a time that does not exist") from None
    return _after_leap_second(time, name) if leap else time


def _after_leap_second(time: datetime, name: str) -> datetime:
    """A leap second ends a month, in UTC; datetime has no word for it, so it becomes the second after."""
    after = time.replace(microsecond=0) + timedelta(seconds=1)
    if (after.day, after.hour, after.minute, after.second) != (1, 0, 0, 0):
        raise MalformedMessage(f"{name} is a time that does not exist")
    return after


def _request_id(value: str, name: str) -> str:
    return _match(_REQUEST_ID, value, f"{name} holds a character that EIP-4361 does not allow")[0]


def _resources(lines: _Lines) -> tuple[str, ...] | None:
    rest = lines.take_if("Resources:")
    if rest is None:
        return None
    if rest != "":
        raise MalformedMessage("something follows 'Resources:' on its line")
    found: list[str] = []
    while (resource := lines.take_if("- ")) is not None:
        found.append(_checked_uri(resource, f"resource {len(found) + 1}"))
    return tuple(found)


def checksummed(address: Address) -> str:
    """EIP-55 spelling of a lower-case address."""
    digits = address[2:]
    nibbles = keccak(digits.encode()).hex()
    return "0x" + "".join(c.upper() if n >= "8" else c for c, n in zip(digits, nibbles, strict=False))


def personal_hash(message: bytes) -> bytes:
    """The 32 bytes that `personal_sign` signs (EIP-191, version E)."""
    return keccak(b"\x19Ethereum Signed Message:\n%d" % len(message) + message)


def recover(message: bytes, signature: bytes) -> Address | None:
    """Address whose key made a `personal_sign` signature (r, s, v) of `message`; None when nobody's did."""
    if len(signature) != SIGNATURE_LENGTH:
        return None
    v = signature[64] - 27 if signature[64] >= 27 else signature[64]
    if v not in (0, 1) or int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        return None
    try:
        key = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes([v]), personal_hash(message), hasher=None
        )
    except ValueError:  # r or s out of range, or a point that is none
        return None
    return "0x" + keccak(key.format(compressed=False)[1:])[-20:].hex()
