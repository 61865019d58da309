"""Sign-in messages, good ones and bad ones in one detail each, through the real route; and ten thousand mutations.

Every message of the table is signed as it stands by the right key, so that only its one detail can refuse it.
"""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import coincurve
import pytest
from aiohttp import ClientSession

from handlers import auth
from handlers.deps import Deps
from handlers.rules.sign_in import Policy, SignInMessage, refusal
from realtime.signatures import Signatures
from realtime.siwe import MAX_LENGTH, MalformedMessage, checksummed, parse, recover
from store import sessions
from store.postgres import Pool
from store.signatures import MAX_SIGNATURE
from tests.conftest import MakeSettings
from tests.contract_wallets import Voter
from tests.realtime.served import Client, serving
from tests.realtime.wallets import Wallet
from tests.realtime.wiring import CHAIN, CHAINS, FakeClock, busy, wire

NOW = datetime(2026, 12, 31, 23, 59, 55, tzinfo=UTC)
"""Five seconds before a leap second might be."""
DOMAIN = "app.expendi.example:8443"
WALLET = Wallet(coincurve.PrivateKey(b"\x51" * 32))
ADDRESS = checksummed(WALLET.address)
NONCE = "NONCENONCENONCENONCENONCENONCENO"
GOOD = f"""\
https://{DOMAIN} wants you to sign in with your Ethereum account:
{ADDRESS}

Sign in to Expendi.

URI: https://{DOMAIN}/login
Version: 1
Chain ID: 31337
Nonce: {NONCE}
Issued At: 2026-12-31T23:59:50Z
Expiration Time: 2027-01-01T00:05:00Z
Not Before: 2026-12-31T23:59:00Z
Request ID: request-1
Resources:
- https://{DOMAIN}/terms
- urn:expendi:privacy"""

Change: TypeAlias = tuple[str, str] | Callable[[str], str]
Row: TypeAlias = tuple[Change, str]
"""What is changed (once), and what becomes of it: good, or the reason in the audit log."""

HEAD, URI, ISSUED, EXPIRES, BEGINS = (
    f"https://{DOMAIN} wants",
    f"URI: https://{DOMAIN}/login",
    "Issued At: 2026-12-31T23:59:50Z",
    "Expiration Time: 2027-01-01T00:05:00Z",
    "Not Before: 2026-12-31T23:59:00Z",
)


def domain(text: str) -> Change:
    return HEAD, f"{text} wants"


def uri(text: str) -> Change:
    return URI, f"URI: {text}"


def chain(text: str) -> Change:
    return "Chain ID: 31337", f"Chain ID: {text}"


def nonce(text: str) -> Change:
    return f"Nonce: {NONCE}", f"Nonce: {text}"


def issued(text: str) -> Change:
    return ISSUED, f"Issued At: {text}"


def expires(text: str) -> Change:
    return EXPIRES, f"Expiration Time: {text}"


def begins(text: str) -> Change:
    return BEGINS, f"Not Before: {text}"


def request(text: str) -> Change:
    return "Request ID: request-1", f"Request ID: {text}"


def statement(text: str) -> Change:
    return "Sign in to Expendi.", text


def resource(text: str) -> Change:
    return "- urn:expendi:privacy", text


def without(line: str) -> Change:
    return line + "\n", ""


def filled(length: int) -> Change:
    return lambda text: text.replace("Expendi.", "Expendi." + "x" * (length - len(text)))


GRAMMAR: dict[str, Row] = {
    "as it is": (("", ""), "good"),
    "no scheme": (domain(DOMAIN), "good"),
    "no statement": (("\nSign in to Expendi.\n", "\n"), "good"),
    "statement of every allowed character": (
        statement(string.ascii_letters + string.digits + "-._~:/?#[]@!$&'()*+,;= "),
        "good",
    ),
    "statement of blanks": (statement("   "), "good"),
    "statement that looks like a field": (statement("URI: https://evil.example"), "good"),
    "no expiration time": (without(EXPIRES), "good"),
    "no not-before": (without(BEGINS), "good"),
    "no request id": (without("Request ID: request-1"), "good"),
    "empty request id": (request(""), "good"),
    "request id of every kind of character": (request("aZ9-._~!$&'()*+,;=:@%2F"), "good"),
    "no resources": (lambda text: text[: text.index("\nResources:")], "good"),
    "empty resources": (lambda text: text[: text.index("\n- ")], "good"),
    "resource with query and fragment": (resource("- https://a.example/b?c=d/e?#f/g?"), "good"),
    "resource of an IPv6 host": (resource("- https://[2001:db8::1]:8443/"), "good"),
    "address in lower case": ((ADDRESS, ADDRESS.lower()), "good"),
    "address in upper case": ((ADDRESS, "0x" + ADDRESS[2:].upper()), "good"),
    "longest message": (filled(MAX_LENGTH), "good"),
    "one character too long": (filled(MAX_LENGTH + 1), "shape"),
    "empty message": (lambda _: "", "malformed"),
    "first line only": (lambda text: text.split("\n")[0], "malformed"),
    "other words": (("sign in with", "log in with"), "malformed"),
    "words in another case": (("wants you", "Wants you"), "malformed"),
    "another ledger's words": (("Ethereum", "Bitcoin"), "malformed"),
    "no colon after account": (("account:", "account"), "malformed"),
    "blank after the first line": (("account:", "account: "), "malformed"),
    "two blanks in the first line": ((" wants", "  wants"), "malformed"),
    "no domain": (domain("https://"), "malformed"),
    "domain with a path": (domain(f"https://{DOMAIN}/"), "malformed"),
    "domain with a query": (domain(f"https://{DOMAIN}?a"), "malformed"),
    "address one digit short": ((ADDRESS, ADDRESS[:-1]), "malformed"),
    "address one digit long": ((ADDRESS, ADDRESS + "0"), "malformed"),
    "address without 0x": ((ADDRESS, ADDRESS[2:]), "malformed"),
    "address with 0X": ((ADDRESS, "0X" + ADDRESS[2:]), "malformed"),
    "address with a wrong checksum": ((ADDRESS, ADDRESS[:2] + ADDRESS[2:].swapcase()), "malformed"),
    "address after a blank": ((ADDRESS, " " + ADDRESS), "malformed"),
    "address before a blank": ((ADDRESS, ADDRESS + " "), "malformed"),
    "no empty line after the address": ((f"{ADDRESS}\n\n", f"{ADDRESS}\n"), "malformed"),
    "another empty line after the address": ((f"{ADDRESS}\n\n", f"{ADDRESS}\n\n\n"), "malformed"),
    "no empty line after the statement": (("Expendi.\n\n", "Expendi.\n"), "malformed"),
    "statement of two lines": (statement("Sign in\nto Expendi."), "malformed"),
    "statement with a quote": (statement('Sign in to "Expendi".'), "malformed"),
    "statement with a backslash": (statement("Sign in to \\Expendi."), "malformed"),
    "statement with angle brackets": (statement("Sign in to <b>Expendi</b>."), "malformed"),
    "statement with a percent sign": (statement("100% Expendi"), "malformed"),
    "statement with a tab": (statement("Sign in\tto Expendi."), "malformed"),
    "statement with NUL": (statement("Sign in\0to Expendi."), "malformed"),
    "statement with DEL": (statement("Sign in\x7fto Expendi."), "malformed"),
    "statement outside ASCII": (statement("Melde dich bei Expéndi an."), "malformed"),
    "statement with an emoji": (statement("Sign in to Expendi \N{WAVING HAND SIGN}"), "malformed"),
    "statement that changes direction": (statement("Sign in \N{RIGHT-TO-LEFT OVERRIDE}to Expendi."), "malformed"),
    "version 2": (("Version: 1", "Version: 2"), "malformed"),
    "version 1.0": (("Version: 1", "Version: 1.0"), "malformed"),
    "version 01": (("Version: 1", "Version: 01"), "malformed"),
    "version 1 and a blank": (("Version: 1", "Version: 1 "), "malformed"),
    "empty version": (("Version: 1", "Version: "), "malformed"),
    "full-width version": (("Version: 1", "Version: \N{FULLWIDTH DIGIT ONE}"), "malformed"),
    "no URI": (without(URI), "malformed"),
    "no version": (without("Version: 1"), "malformed"),
    "no chain id": (without("Chain ID: 31337"), "malformed"),
    "no nonce": (without(f"Nonce: {NONCE}"), "malformed"),
    "no issued-at": (without(ISSUED), "malformed"),
    "URI twice": ((URI, f"{URI}\n{URI}"), "malformed"),
    "nonce twice": ((f"Nonce: {NONCE}", f"Nonce: {NONCE}\nNonce: {NONCE}"), "malformed"),
    "expiry twice": ((EXPIRES, f"{EXPIRES}\n{EXPIRES}"), "malformed"),
    "nonce before chain id": (
        (f"Chain ID: 31337\nNonce: {NONCE}", f"Nonce: {NONCE}\nChain ID: 31337"),
        "malformed",
    ),
    "not-before before expiry": ((f"{EXPIRES}\n{BEGINS}", f"{BEGINS}\n{EXPIRES}"), "malformed"),
    "request id before issued-at": (
        lambda text: text.replace("Request ID: request-1\n", "").replace(ISSUED, f"Request ID: request-1\n{ISSUED}"),
        "malformed",
    ),
    "a field nobody knows": (("Request ID:", "Role: admin\nRequest ID:"), "malformed"),
    "field name in lower case": (("Chain ID:", "chain id:"), "malformed"),
    "no blank after the colon": (("Chain ID: ", "Chain ID:"), "malformed"),
    "two blanks after the colon": (("Chain ID: ", "Chain ID:  "), "malformed"),
    "blank before the colon": (("Chain ID: ", "Chain ID : "), "malformed"),
    "blank before the field": (("Chain ID: ", " Chain ID: "), "malformed"),
    "empty line between fields": (("\nVersion", "\n\nVersion"), "malformed"),
    "request id with a blank": (request("request 1"), "malformed"),
    "request id with a slash": (request("request/1"), "malformed"),
    "request id with half an escape": (request("request%2"), "malformed"),
    "request id outside ASCII": (request("requést"), "malformed"),
    "something after Resources:": (("Resources:", "Resources: "), "malformed"),
    "resource that is no URI": (resource("- privacy"), "malformed"),
    "resource that is empty": (resource("- "), "malformed"),
    "resource with a blank": (resource("- urn:expendi:our privacy"), "malformed"),
    "resource without its dash": (resource("urn:expendi:privacy"), "malformed"),
    "resource with a star": (resource("* urn:expendi:privacy"), "malformed"),
    "resource after two blanks": (resource("-  urn:expendi:privacy"), "malformed"),
    "empty line between resources": (resource("\n- urn:expendi:privacy"), "malformed"),
    "resources twice": (resource("Resources:\n- urn:expendi:privacy"), "malformed"),
    "CRLF everywhere": (lambda text: text.replace("\n", "\r\n"), "malformed"),
    "CRLF once": (("\nVersion", "\r\nVersion"), "malformed"),
    "CR for LF": (lambda text: text.replace("\n", "\r"), "malformed"),
    "vertical tab for LF": (("\nVersion", "\vVersion"), "malformed"),
    "form feed for LF": (("\nVersion", "\fVersion"), "malformed"),
    "NEL for LF": (("\nVersion", "\x85Version"), "malformed"),
    "line separator for LF": (("\nVersion", "\u2028Version"), "malformed"),
    "LF at the end": (lambda text: text + "\n", "malformed"),
    "CRLF at the end": (lambda text: text + "\r\n", "malformed"),
    "blank at the end": (lambda text: text + " ", "malformed"),
    "NUL at the end": (lambda text: text + "\0", "malformed"),
    "another message at the end": (lambda text: text + "\n\n" + text, "malformed"),
    "LF at the beginning": (lambda text: "\n" + text, "malformed"),
    "blank at the beginning": (lambda text: " " + text, "malformed"),
    "byte order mark": (lambda text: "\ufeff" + text, "malformed"),
    "zero-width space": (("Version: 1", "Version: 1\u200b"), "malformed"),
    "no-break space": (("Version: ", "Version:\u00a0"), "malformed"),
}

PLACES: dict[str, Row] = {
    "scheme http": (domain(f"http://{DOMAIN}"), "good"),
    "scheme in capitals": (domain(f"HTTPS://{DOMAIN}"), "good"),
    "scheme ftp": (domain(f"ftp://{DOMAIN}"), "scheme"),
    "scheme of an extension": (domain(f"chrome-extension://{DOMAIN}"), "scheme"),
    "scheme that begins with a digit": (domain(f"1https://{DOMAIN}"), "malformed"),
    "scheme with one slash": (domain(f"https:/{DOMAIN}"), "malformed"),
    "scheme without a name": (domain(f"://{DOMAIN}"), "malformed"),
    "two schemes": (domain(f"https://https://{DOMAIN}"), "malformed"),
    "domain in capitals": (domain(f"https://{DOMAIN.upper()}"), "good"),
    "another domain": (domain("https://evil.example"), "domain"),
    "a domain below ours": (domain(f"https://evil.{DOMAIN}"), "domain"),
    "the domain above ours": (domain("https://expendi.example:8443"), "domain"),
    "ours as the beginning": (domain("https://app.expendi.example.evil.example:8443"), "domain"),
    "ours as the end": (domain(f"https://evil-{DOMAIN}"), "domain"),
    "ours as the user": (domain(f"https://{DOMAIN}@evil.example"), "domain"),
    "a user at ours": (domain(f"https://evil@{DOMAIN}"), "domain"),
    "domain with a dot at its end": (domain("https://app.expendi.example.:8443"), "domain"),
    "escaped domain": (domain("https://app%2Eexpendi.example:8443"), "domain"),
    "punycode look-alike": (domain("https://xn--pp-1ia.expendi.example:8443"), "domain"),
    "Cyrillic look-alike": (domain("https://\u0430pp.expendi.example:8443"), "malformed"),
    "soft hyphen in the domain": (domain("https://app.ex\u00adpendi.example:8443"), "malformed"),
    "no port": (domain("https://app.expendi.example"), "domain"),
    "empty port": (domain("https://app.expendi.example:"), "domain"),
    "another port": (domain("https://app.expendi.example:8444"), "domain"),
    "port with a zero before it": (domain("https://app.expendi.example:08443"), "domain"),
    "port that is a word": (domain("https://app.expendi.example:https"), "malformed"),
    "two ports": (domain("https://app.expendi.example:1:8443"), "malformed"),
    "localhost where it is not served": (domain("localhost"), "domain"),
    "loopback where it is not served": (domain("127.0.0.1:8443"), "domain"),
    "IPv6 loopback where it is not served": (domain("[::1]:8443"), "domain"),
    "brackets around a name": (domain("https://[app.expendi.example]:8443"), "malformed"),
    "URI without a path": (uri(f"https://{DOMAIN}"), "good"),
    "URI with path, query and fragment": (uri(f"https://{DOMAIN}/a/b?c=%20#d"), "good"),
    "URI in capitals": (uri(f"HTTPS://{DOMAIN.upper()}/LOGIN"), "good"),
    "URI of http": (uri(f"http://{DOMAIN}/login"), "good"),
    "URI of another host": (uri("https://evil.example/login"), "uri"),
    "URI of a host below ours": (uri(f"https://evil.{DOMAIN}/login"), "uri"),
    "URI with ours as the beginning": (uri(f"https://{DOMAIN.replace(':8443', '')}.evil.example:8443"), "uri"),
    "URI with ours as the user": (uri(f"https://{DOMAIN}@evil.example/"), "uri"),
    "URI with a user at ours": (uri(f"https://evil@{DOMAIN}/"), "uri"),
    "URI with ours as the path": (uri(f"https://evil.example/{DOMAIN}"), "uri"),
    "URI with ours as the fragment": (uri(f"https://evil.example#https://{DOMAIN}"), "uri"),
    "URI of the default port": (uri("https://app.expendi.example/login"), "uri"),
    "URI of another port": (uri("https://app.expendi.example:8444/login"), "uri"),
    "URI of a port that does not exist": (uri("https://app.expendi.example:99999/login"), "uri"),
    "URI with a dot at the host's end": (uri("https://app.expendi.example.:8443/login"), "uri"),
    "URI of another scheme": (uri(f"ipfs://{DOMAIN}/login"), "uri"),
    "URI without a host": (uri("https:/login"), "uri"),
    "URI that is a name": (uri("urn:expendi:login"), "uri"),
    "URI of a script": (uri("javascript:alert(1)"), "uri"),
    "URI of localhost": (uri("http://localhost/login"), "uri"),
    "URI that is relative": (uri("/login"), "malformed"),
    "URI that is empty": (uri(""), "malformed"),
    "URI with a blank": (uri(f"https://{DOMAIN}/log in"), "malformed"),
    "URI with a blank at its end": (uri(f"https://{DOMAIN}/login "), "malformed"),
    "URI with a backslash": (uri(f"https://{DOMAIN}\\@evil.example"), "malformed"),
    "URI with half an escape": (uri(f"https://{DOMAIN}/%2"), "malformed"),
    "URI with two fragments": (uri(f"https://{DOMAIN}/#a#b"), "malformed"),
    "URI with angle brackets": (uri(f"<https://{DOMAIN}/>"), "malformed"),
    "URI outside ASCII": (uri(f"https://{DOMAIN}/lögin"), "malformed"),
    "URI of a broken IPv6 address": (uri("https://[::1::2]/"), "malformed"),
    "URI of a zoned IPv6 address": (uri("https://[fe80::1%25eth0]/"), "malformed"),
    "the other chain": (chain("31338"), "good"),
    "chain id with zeros before it": (chain("0031337"), "good"),
    "a chain not ours": (chain("1"), "chain_id"),
    "chain 0": (chain("0"), "chain_id"),
    "chain of a thousand digits": (chain("9" * 1000), "chain_id"),
    "chain id and 2**64": (chain(str(31337 + 2**64)), "chain_id"),
    "chain id in hex": (chain("0x7a69"), "malformed"),
    "negative chain id": (chain("-31337"), "malformed"),
    "chain id with a plus": (chain("+31337"), "malformed"),
    "chain id with a fraction": (chain("31337.0"), "malformed"),
    "chain id with an underscore": (chain("31_337"), "malformed"),
    "chain id in Arabic digits": (chain("\u0663\u0661\u0663\u0663\u0667"), "malformed"),
    "empty chain id": (chain(""), "malformed"),
    "a nonce nobody got": (nonce("a" * 32), "nonce"),
    "nonce and one letter more": (nonce(NONCE + "a"), "nonce"),
    "a nonce of one letter less": (nonce(NONCE[:-1]), "nonce"),
    "nonce of seven letters": (nonce("abcdefg"), "malformed"),
    "nonce with a dash": (nonce(f"{NONCE}-"), "malformed"),
    "nonce and a blank": (nonce(f"{NONCE} "), "malformed"),
    "nonce and NUL": (nonce(f"{NONCE}\0"), "malformed"),
    "nonce outside ASCII": (nonce(f"{NONCE}é"), "malformed"),
    "empty nonce": (nonce(""), "malformed"),
}

TIMES: dict[str, Row] = {
    "issued now": (issued("2026-12-31T23:59:55Z"), "good"),
    "issued as far ahead as clocks go wrong": (issued("2027-01-01T00:00:55Z"), "good"),
    "issued a millisecond further ahead": (issued("2027-01-01T00:00:55.001Z"), "issued_at"),
    "issued as long ago as a nonce lives": (issued("2026-12-31T23:53:55Z"), "good"),
    "issued a millisecond longer ago": (issued("2026-12-31T23:53:54.999Z"), "issued_at"),
    "issued a year ago": (issued("2025-12-31T23:59:50Z"), "issued_at"),
    "issued a year ahead": (issued("2027-12-31T23:59:50Z"), "issued_at"),
    "issued in small letters": (issued("2026-12-31t23:59:50z"), "good"),
    "issued with three digits": (issued("2026-12-31T23:59:50.123Z"), "good"),
    "issued with one digit": (issued("2026-12-31T23:59:50.1Z"), "good"),
    "issued with twelve digits": (issued("2026-12-31T23:59:50.123456789012Z"), "good"),
    "issued in the east": (issued("2027-01-01T13:59:50+14:00"), "good"),
    "issued in the west": (issued("2026-12-31T11:59:50-12:00"), "good"),
    "issued in half an hour's zone": (issued("2027-01-01T05:29:50+05:30"), "good"),
    "issued in an unknown zone": (issued("2026-12-31T23:59:50-00:00"), "good"),
    "issued in a zone that is not meant": (issued("2026-12-31T23:59:50+01:00"), "issued_at"),
    "issued in the leap second": (issued("2026-12-31T23:59:60Z"), "good"),
    "issued late in the leap second": (issued("2026-12-31T23:59:60.999Z"), "good"),
    "issued in the leap second of the east": (issued("2027-01-01T08:59:60+09:00"), "good"),
    "issued in a leap second of no month's end": (issued("2026-12-30T23:59:60Z"), "malformed"),
    "issued in a leap second of the hour": (issued("2026-12-31T22:59:60Z"), "malformed"),
    "issued in a leap second of local midnight": (issued("2026-12-31T23:59:60+01:00"), "malformed"),
    "issued in second 61": (issued("2026-12-31T23:59:61Z"), "malformed"),
    "issued in minute 60": (issued("2026-12-31T23:60:00Z"), "malformed"),
    "issued in hour 24": (issued("2026-12-31T24:00:00Z"), "malformed"),
    "issued on day 32": (issued("2026-12-32T00:00:00Z"), "malformed"),
    "issued on day 0": (issued("2026-12-00T00:00:00Z"), "malformed"),
    "issued in month 13": (issued("2026-13-01T00:00:00Z"), "malformed"),
    "issued on a 29th of February that is none": (issued("2027-02-29T00:00:00Z"), "malformed"),
    "issued in year 0": (issued("0000-12-31T23:59:50Z"), "malformed"),
    "issued in a year of five digits": (issued("12026-12-31T23:59:50Z"), "malformed"),
    "issued before all time": (issued("0001-01-01T00:00:00+23:59"), "malformed"),
    "issued after all time": (issued("9999-12-31T23:59:59-23:59"), "malformed"),
    "issued nowhere": (issued("2026-12-31T23:59:50"), "malformed"),
    "issued in a zone without a colon": (issued("2026-12-31T23:59:50+0000"), "malformed"),
    "issued in a zone without minutes": (issued("2026-12-31T23:59:50+00"), "malformed"),
    "issued in zone 24": (issued("2026-12-31T23:59:50+24:00"), "malformed"),
    "issued in a zone of sixty minutes": (issued("2026-12-31T23:59:50+00:60"), "malformed"),
    "issued in GMT": (issued("2026-12-31T23:59:50GMT"), "malformed"),
    "issued in two zones": (issued("2026-12-31T23:59:50Z+00:00"), "malformed"),
    "issued with an empty fraction": (issued("2026-12-31T23:59:50.Z"), "malformed"),
    "issued with a comma": (issued("2026-12-31T23:59:50,5Z"), "malformed"),
    "issued without seconds": (issued("2026-12-31T23:59Z"), "malformed"),
    "issued without a time": (issued("2026-12-31"), "malformed"),
    "issued with a blank for T": (issued("2026-12-31 23:59:50Z"), "malformed"),
    "issued without dashes": (issued("20261231T235950Z"), "malformed"),
    "issued in a week": (issued("2026-W53-4T23:59:50Z"), "malformed"),
    "issued in one-digit fields": (issued("2026-12-31T23:59:5Z"), "malformed"),
    "issued in seconds since 1970": (issued("1798761590"), "malformed"),
    "issued in Arabic digits": (issued("\u0662026-12-31T23:59:50Z"), "malformed"),
    "issued before a blank": (issued("2026-12-31T23:59:50Z "), "malformed"),
    "issued at no time": (issued(""), "malformed"),
    "expires in a millisecond": (expires("2026-12-31T23:59:55.001Z"), "good"),
    "expires now": (expires("2026-12-31T23:59:55Z"), "expired"),
    "expired a millisecond ago": (expires("2026-12-31T23:59:54.999Z"), "expired"),
    "expired a year ago": (expires("2025-12-31T23:59:55Z"), "expired"),
    "expired in the east": (expires("2027-01-01T00:05:00+01:00"), "expired"),
    "expires in the leap second": (expires("2026-12-31T23:59:60Z"), "good"),
    "expires at the end of time": (expires("9999-12-31T23:59:59Z"), "good"),
    "expires never": (expires("never"), "malformed"),
    "expires at an empty time": (expires(""), "malformed"),
    "begins now": (begins("2026-12-31T23:59:55Z"), "good"),
    "begins in a millisecond": (begins("2026-12-31T23:59:55.001Z"), "not_before"),
    "begins in the leap second": (begins("2026-12-31T23:59:60Z"), "not_before"),
    "began in the east": (begins("2027-01-01T00:59:00+01:00"), "good"),
    "begins in the west": (begins("2026-12-31T23:59:00-01:00"), "not_before"),
    "began at the beginning of time": (begins("0001-01-01T00:00:00Z"), "good"),
    "begins on a day that does not exist": (begins("2026-11-31T00:00:00Z"), "malformed"),
}
TABLE = {**GRAMMAR, **PLACES, **TIMES}

LOOPBACK: dict[str, Row] = {
    "localhost": (domain("localhost"), "good"),
    "localhost with a port": (domain("http://localhost:3000"), "good"),
    "LOCALHOST": (domain("LOCALHOST:3000"), "good"),
    "127.0.0.1": (domain("127.0.0.1:5173"), "good"),
    "[::1]": (domain("[::1]:5173"), "good"),
    "[::1] without a port": (domain("[::1]"), "good"),
    "URI of localhost": (uri("http://localhost:3000/"), "good"),
    "a host below localhost": (domain("localhost.evil.example"), "domain"),
    "a host above localhost": (domain("evil.localhost"), "domain"),
    "a user at localhost": (domain("evil@localhost"), "domain"),
    "another loopback address": (domain("127.0.0.2"), "domain"),
    "every address": (domain("0.0.0.0"), "domain"),
    "URI with localhost as the user": (uri("http://localhost@evil.example/"), "uri"),
    "URI of another scheme at localhost": (uri("ftp://localhost/"), "uri"),
}
LISTED = ("https://id.expendi.example/app", "https://app.expendi.example")
LISTED_URIS: dict[str, Row] = {
    "the listed URI": (uri("https://id.expendi.example/app"), "good"),
    "with a slash": (uri("https://id.expendi.example/app/"), "good"),
    "below it": (uri("https://id.expendi.example/app/login?a=b"), "good"),
    "with the default port": (uri("https://id.expendi.example:443/app"), "good"),
    "anything on the other": (uri("https://app.expendi.example/x"), "good"),
    "above it": (uri("https://id.expendi.example/"), "uri"),
    "beside it": (uri("https://id.expendi.example/application"), "uri"),
    "http for https": (uri("http://id.expendi.example/app"), "uri"),
    "another port": (uri("https://id.expendi.example:8443/app"), "uri"),
    "http on the port of https": (uri("http://id.expendi.example:443/app"), "uri"),
    "the domain, which is not listed": (uri(f"https://{DOMAIN}/login"), "uri"),
    "a user at it": (uri("https://evil@id.expendi.example/app"), "uri"),
}


def changed(change: Change) -> str:
    if not isinstance(change, tuple):
        return change(GOOD)
    old, new = change
    assert GOOD.count(old) == 1 or not old, old
    return GOOD.replace(old, new, 1)


@pytest.fixture
def make_deps(pool: Pool, make_settings: MakeSettings) -> Callable[..., Deps]:
    def make(**overrides: Any) -> Deps:
        settings = busy(make_settings, **{"domain": DOMAIN, "env": "production", **overrides})
        return wire(pool, settings, clock=FakeClock(NOW))

    return make


@pytest.fixture
async def signatures() -> AsyncIterator[Signatures]:
    """The real check; its node knows no contract."""
    async with Voter(chain_id=CHAIN.id) as node, ClientSession() as session:
        node.answer = "0x00"
        yield Signatures({CHAIN.id: node.chain(name="devnet")}, session)


async def verdict(deps: Deps, anyone: Client, text: str, issued: str) -> str:
    """What the route makes of a message that the right key signed: good, or the reason; nonces are held to it."""
    before = await deps.pool.fetchval("SELECT count(*) FROM audit_logs")
    got = await anyone.post("/v1/auth/verify", {"message": text, "signature": WALLET.sign(text)})
    noted = await deps.pool.fetch("SELECT action, metadata FROM audit_logs ORDER BY id OFFSET $1", before)
    spent = await sessions.nonce_end(deps.pool, issued) is None
    if got.status == 200:
        assert got.json["user"]["address"] == WALLET.address
        assert ([row["action"] for row in noted], spent) == (["sign_in"], True)
        return "good"
    if not noted:
        assert (got.status, spent) == (400, False)
        return "shape"
    [reason] = [str(row["metadata"]["reason"]) for row in noted]
    assert got.status == (400 if reason == "malformed" else 401)
    assert spent == (reason not in {"malformed", "nonce"})
    return reason


async def departures(deps: Deps, signatures: Signatures, table: dict[str, Row]) -> dict[str, str]:
    """Rows that came out otherwise than the table says."""
    found: dict[str, str] = {}
    async with serving(deps, signatures) as anyone:
        for name, (change, expected) in table.items():
            issued = (await auth.issue_nonce(deps)).value
            came = await verdict(deps, anyone, changed(change).replace(NONCE, issued), issued)
            if came not in expected.split(" or "):
                found[name] = f"{came} instead of {expected}"
    return found


async def test_every_message_of_the_table_comes_out_as_it_says(
    make_deps: Callable[..., Deps], signatures: Signatures
) -> None:
    assert len(GRAMMAR) + len(PLACES) + len(TIMES) == len(TABLE) >= 120
    assert await departures(make_deps(), signatures, TABLE) == {}


async def test_the_developers_own_machine_is_ours_in_development_only(
    make_deps: Callable[..., Deps], signatures: Signatures
) -> None:
    assert await departures(make_deps(env="development"), signatures, LOOPBACK) == {}
    ours = {name: (change, "domain or uri") for name, (change, _) in LOOPBACK.items()}
    assert await departures(make_deps(), signatures, ours) == {}


async def test_listed_uris_are_the_only_ones(make_deps: Callable[..., Deps], signatures: Signatures) -> None:
    assert await departures(make_deps(sign_in_uris=LISTED), signatures, LISTED_URIS) == {}


ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SIGNATURES: dict[str, tuple[Callable[[bytes], str], int]] = {
    "as it is": (lambda s: "0x" + s.hex(), 200),
    "in capitals": (lambda s: "0x" + s.hex().upper(), 200),
    "v of 0 or 1": (lambda s: "0x" + s[:64].hex() + f"{s[64] - 27:02x}", 200),
    "the other v": (lambda s: "0x" + s[:64].hex() + f"{55 - s[64]:02x}", 401),
    "v of EIP-155": (lambda s: "0x" + s[:64].hex() + "25", 401),
    "the twin with the higher s": (
        lambda s: "0x" + s[:32].hex() + f"{ORDER - int.from_bytes(s[32:64], 'big'):064x}{55 - s[64]:02x}",
        401,
    ),
    "r and s exchanged": (lambda s: "0x" + (s[32:64] + s[:32] + s[64:]).hex(), 401),
    "r of zero": (lambda s: "0x" + "00" * 32 + s[32:].hex(), 401),
    "s of zero": (lambda s: "0x" + (s[:32] + bytes(32) + s[64:]).hex(), 401),
    "r beyond the order": (lambda s: "0x" + "ff" * 32 + s[32:].hex(), 401),
    "zeros": (lambda _: "0x" + "00" * 65, 401),
    "a byte short": (lambda s: "0x" + s[:64].hex(), 401),
    "a byte long": (lambda s: "0x" + s.hex() + "00", 401),
    "another key's": (lambda _: Wallet().sign(GOOD), 401),
    "of another message": (lambda _: WALLET.sign(GOOD + " "), 401),
    "of the bare hash": (
        lambda _: "0x" + WALLET.key.sign_recoverable(GOOD.encode()).hex(),
        401,
    ),
    "only the mark of ERC-6492": (lambda _: "0x" + "6492" * 16, 401),
    "wrapped for nobody": (lambda s: "0x" + s.hex() + "6492" * 16, 401),
    "longest": (lambda _: "0x" + "01" * MAX_SIGNATURE, 401),
    "a byte too long": (lambda _: "0x" + "01" * (MAX_SIGNATURE + 1), 400),
    "empty": (lambda _: "0x", 400),
    "no 0x": (lambda s: s.hex(), 400),
    "half a byte": (lambda s: "0x" + s.hex()[:-1], 400),
    "no hex": (lambda _: "0x" + "zz" * 65, 400),
    "a line end behind it": (lambda s: "0x" + s.hex() + "\n", 400),
}


async def test_every_signature_of_the_table_comes_out_as_it_says(
    make_deps: Callable[..., Deps], signatures: Signatures
) -> None:
    deps, came = make_deps(), {}
    async with serving(deps, signatures) as anyone:
        for name, (change, _) in SIGNATURES.items():
            text = GOOD.replace(NONCE, (await auth.issue_nonce(deps)).value)
            signature = change(bytes.fromhex(WALLET.sign(text)[2:]))
            came[name] = (await anyone.post("/v1/auth/verify", {"message": text, "signature": signature})).status
    assert came == {name: status for name, (_, status) in SIGNATURES.items()}


async def test_bodies_that_hold_no_text_are_refused(make_deps: Callable[..., Deps], signatures: Signatures) -> None:
    deps = make_deps()
    async with serving(deps, signatures) as anyone:
        for message in (b'"\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b"null", b"7", b'["a"]', b'{"a": "b"}'):
            body = b'{"signature": "0x00", "message": ' + message + b"}"
            headers = {"Content-Type": "application/json"}
            assert (await anyone.call("POST", "/v1/auth/verify", data=body, headers=headers)).status == 400


# Ten thousand -------------------------------------------------------------------------------------------------------

FUZZED = 10_000
POLICY = Policy(domain=DOMAIN, uris=(), chain_ids=CHAINS.keys(), nonce_life=timedelta(seconds=300), loopback=False)
SIGNED = bytes.fromhex(WALLET.sign(GOOD)[2:])
THIEF = Wallet(coincurve.PrivateKey(b"\x66" * 32))
BITS = (
    *("\n", "\r\n", " ", "\0", "é", "0", "1", ":", "/", "@", "%", "-", "Z", "+01:00"),
    *("https://", "evil.example", "\n- a:b"),
)


def mutated_text(drawn: random.Random) -> str:
    """The good message with one to three places changed, bit by bit or line by line."""
    text = GOOD
    for _ in range(drawn.choice((1, 1, 1, 2, 3))):
        at = drawn.randrange(len(text) + 1)
        to = min(len(text), at + drawn.choice((0, 1, 1, 2, 10)))
        lines = text.split("\n")
        here, there = drawn.randrange(len(lines)), drawn.randrange(len(lines))
        match drawn.randrange(7):
            case 0:
                text = text[:at] + drawn.choice(BITS) + text[to:]
            case 1:
                text = text[:at] + text[to:]
            case 2:
                text = text[:at] + chr(drawn.randrange(0x20, 0x7F)) + text[at + 1 :]
            case 3:
                text = text[:at] + text[at : at + 1].swapcase() + text[at + 1 :]
            case 4:
                digit = drawn.choice([i for i, character in enumerate(text) if character.isdecimal()])
                text = text[:digit] + drawn.choice(string.digits) + text[digit + 1 :]
            case 5:
                lines[here], lines[there] = lines[there], lines[here]
                text = "\n".join(lines)
            case _:
                text = "\n".join(lines[:here] + lines[here + drawn.randrange(2) :] + lines[there : there + 1])
    return text


def mutated_signature(drawn: random.Random) -> bytes:
    bad = bytearray(SIGNED)
    for at in drawn.sample(range(len(SIGNED)), drawn.choice((1, 1, 2, 3))):
        bad[at] ^= 1 << drawn.randrange(8)
    return bytes(bad[: drawn.choice((65, 65, 65, 64, 33))] + bytes(drawn.choice((0, 0, 0, 1))))


def same(signature: bytes) -> bool:
    """Whether a signature is the good one in its other spelling (v of 0 or 1)."""
    return len(signature) == 65 and signature[:64] == SIGNED[:64] and signature[64] % 27 == SIGNED[64] % 27


def fate(text: str, signature: bytes) -> tuple[str, SignInMessage | None]:
    """How far a sign-in comes, by the functions that the route calls."""
    try:
        message = parse(text)
    except MalformedMessage:
        return "malformed", None
    refused = refusal(message, POLICY, now=NOW)
    if refused is not None:
        return refused.reason, message
    return ("accepted" if recover(text.encode(), signature) == message.address else "signature"), message


def test_of_ten_thousand_mutations_none_is_accepted() -> None:
    drawn, fates = random.Random(4361), Counter[str]()
    assert fate(GOOD, SIGNED)[0] == "accepted"
    for number in range(FUZZED):
        text, signature = GOOD, SIGNED
        match number % 3:
            case 0:  # the text was changed on its way
                text = mutated_text(drawn)
            case 1:  # the signature was
                signature = mutated_signature(drawn)
            case _:  # a thief made a text of his own, and signed it himself
                text = mutated_text(drawn)
                signature = bytes.fromhex(THIEF.sign(text)[2:])
        if text == GOOD and same(signature):
            continue
        came, _ = fate(text, signature)
        fates[came] += 1
        assert came != "accepted", (text, signature.hex())
    assert fates.total() >= FUZZED * 0.97  # a few mutations change nothing
    assert fates["malformed"] > FUZZED * 0.2
    assert fates["signature"] > FUZZED * 0.4  # everything else about them was right
    assert fates.keys() >= {"domain", "uri", "chain_id", "issued_at", "expired", "not_before", "scheme"}


def test_a_mutation_that_its_own_key_signed_never_reads_as_another_message() -> None:
    """The owner may sign what he likes; what is then accepted must say what the text says."""
    drawn, accepted = random.Random(1271), 0
    meaning = parse(GOOD)
    for _ in range(FUZZED // 5):
        text = mutated_text(drawn)
        came, message = fate(text, bytes.fromhex(WALLET.sign(text)[2:]))
        if came != "accepted" or message is None:
            continue
        accepted += 1
        assert (message.address, message.domain.lower()) == (meaning.address, DOMAIN)
        assert "\nChain ID: " in text
        assert int(text.split("\nChain ID: ")[1].split("\n")[0]) == message.chain_id
        assert text.split("\nNonce: ")[1].split("\n")[0] == message.nonce
    assert accepted > 100
