from __future__ import annotations

import string
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import coincurve
import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.rules.sign_in import SignInMessage
from realtime.siwe import MAX_LENGTH, MalformedMessage, checksummed, parse, personal_hash, recover
from tests.realtime.wallets import Wallet, text_of

ADDRESS = "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045"
GOOD = f"""\
https://app.expendi.example:8443 wants you to sign in with your Ethereum account:
{ADDRESS}

I accept the Terms: https://app.expendi.example/tos

URI: https://app.expendi.example:8443/login?next=%2Fhome#top
Version: 1
Chain ID: 8453
Nonce: 32891756
Issued At: 2026-11-24T16:25:24.123Z
Expiration Time: 2026-11-24T18:25:24+02:00
Not Before: 2026-11-24t16:25:24z
Request ID: some-request_id@1
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/
- urn:expendi:terms"""


def test_every_field_is_read() -> None:
    assert parse(GOOD) == SignInMessage(
        scheme="https",
        domain="app.expendi.example:8443",
        address=ADDRESS.lower(),
        statement="I accept the Terms: https://app.expendi.example/tos",
        uri="https://app.expendi.example:8443/login?next=%2Fhome#top",
        chain_id=8453,
        nonce="32891756",
        issued_at=datetime(2026, 11, 24, 16, 25, 24, 123000, UTC),
        expiration_time=datetime(2026, 11, 24, 16, 25, 24, tzinfo=UTC),
        not_before=datetime(2026, 11, 24, 16, 25, 24, tzinfo=UTC),
        request_id="some-request_id@1",
        resources=(
            "ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/",
            "urn:expendi:terms",
        ),
    )


BAD = {
    "no scheme name before ://": ("https://app", "://app"),
    "scheme begins with a digit": ("https://app", "1https://app"),
    "no domain": ("https://app.expendi.example:8443 wants", " wants"),
    "domain with a path": ("8443 wants", "8443/login wants"),
    "domain with a blank": ("https://app", "https://my app"),
    "domain with a bad port": (":8443 wants", ":port wants"),
    "domain with half a percent escape": ("app.expendi.example:8443 wants", "app%2.example wants"),
    "domain with brackets around a name": ("app.expendi.example:8443 wants", "[app]:8443 wants"),
    "domain with a zoned IPv6 address": ("app.expendi.example:8443 wants", "[fe80::1%25eth0] wants"),
    "other words": ("wants you to sign in", "wants you to sign up"),
    "words in another case": ("wants you to sign in", "Wants you to sign in"),
    "another chain's words": ("Ethereum", "Solana"),
    "a blank at the end of the first line": ("account:\n", "account: \n"),
    "address too short": (ADDRESS, ADDRESS[:-1]),
    "address too long": (ADDRESS, ADDRESS + "0"),
    "address without 0x": (ADDRESS, ADDRESS[2:] + "00"),
    "address with 0X": (ADDRESS, "0X" + ADDRESS[2:]),
    "address with a letter that is no digit": (ADDRESS, ADDRESS[:-1] + "g"),
    "address with a wrong checksum": (ADDRESS, ADDRESS.replace("dA6BF", "DA6BF")),
    "address on the first line": ("account:\n0x", "account: 0x"),
    "no empty line after the address": (f"{ADDRESS}\n\n", f"{ADDRESS}\n"),
    "three empty lines": (f"{ADDRESS}\n\n", f"{ADDRESS}\n\n\n"),
    "statement of two lines": ("I accept", "I\naccept"),
    "statement with a quote": ("I accept", 'I "accept"'),
    "statement with a tab": ("I accept", "I\taccept"),
    "statement outside ASCII": ("I accept", "I áccept"),
    "no empty line after the statement": ("/tos\n\n", "/tos\n"),
    "no URI": ("URI: https://app.expendi.example:8443/login?next=%2Fhome#top\n", ""),
    "URI without a scheme": ("URI: https:", "URI: "),
    "URI that is relative": ("URI: https://app.expendi.example:8443", "URI: "),
    "URI with a blank": ("/login?", "/log in?"),
    "URI with half a percent escape": ("%2Fhome", "%2"),
    "URI with two fragments": ("#top", "#top#top"),
    "URI with a bad IPv6 address": ("URI: https://app.expendi.example:8443", "URI: https://[::g]"),
    "URI in lower case": ("URI: ", "uri: "),
    "no blank after the colon": ("URI: ", "URI:"),
    "two blanks after the colon": ("URI: ", "URI:  "),
    "version 2": ("Version: 1", "Version: 2"),
    "version 1.0": ("Version: 1", "Version: 1.0"),
    "no version": ("Version: 1\n", ""),
    "chain id that is no number": ("Chain ID: 8453", "Chain ID: 0x2105"),
    "chain id that is negative": ("Chain ID: 8453", "Chain ID: -1"),
    "chain id that is empty": ("Chain ID: 8453", "Chain ID: "),
    "chain id of other digits": ("Chain ID: 8453", "Chain ID: ٨٤٥٣"),
    "nonce of seven characters": ("Nonce: 32891756", "Nonce: 3289175"),
    "nonce with a dash": ("Nonce: 32891756", "Nonce: 3289-1756"),
    "nonce before the chain id": ("Chain ID: 8453\nNonce: 32891756", "Nonce: 32891756\nChain ID: 8453"),
    "nonce twice": ("Nonce: 32891756", "Nonce: 32891756\nNonce: 32891756"),
    "no nonce": ("Nonce: 32891756\n", ""),
    "no issued at": ("Issued At: 2026-11-24T16:25:24.123Z\n", ""),
    "time without a zone": ("24.123Z", "24.123"),
    "time with a blank for T": ("2026-11-24T16:25:24.123Z", "2026-11-24 16:25:24.123Z"),
    "time without seconds": ("16:25:24.123Z", "16:25Z"),
    "time with an empty fraction": ("24.123Z", "24.Z"),
    "time with a zone without a colon": ("24+02:00", "24+0200"),
    "time with a zone of 24 hours": ("24+02:00", "24+24:00"),
    "day that does not exist": ("2026-11-24T16:25:24.123Z", "2026-02-30T16:25:24.123Z"),
    "hour that does not exist": ("2026-11-24T16:25:24.123Z", "2026-11-24T24:00:00.000Z"),
    "year 0": ("2026-11-24T16:25:24.123Z", "0000-11-24T16:25:24.123Z"),
    "time before all time": ("2026-11-24T18:25:24+02:00", "0001-01-01T00:00:00+23:59"),
    "leap second within a month": ("2026-11-24T16:25:24.123Z", "2026-11-24T23:59:60Z"),
    "expiry that is no time": ("Expiration Time: 2026-11-24T18:25:24+02:00", "Expiration Time: never"),
    "expiry after not-before": (
        "Expiration Time: 2026-11-24T18:25:24+02:00\nNot Before: 2026-11-24t16:25:24z",
        "Not Before: 2026-11-24t16:25:24z\nExpiration Time: 2026-11-24T18:25:24+02:00",
    ),
    "request id with a blank": ("some-request_id@1", "some request"),
    "request id with a slash": ("some-request_id@1", "a/b"),
    "something after Resources:": ("Resources:\n", "Resources: \n"),
    "resource without a dash": ("\n- urn", "\nurn"),
    "resource that is no URI": ("- urn:expendi:terms", "- terms"),
    "an empty line between resources": ("\n- urn", "\n\n- urn"),
    "a line end at the end": ("terms", "terms\n"),
    "CRLF": ("\nVersion", "\r\nVersion"),
    "a line nobody knows": ("\nRequest ID", "\nRole: admin\nRequest ID"),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_one_bad_detail_is_refused(change: tuple[str, str]) -> None:
    old, new = change
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    with pytest.raises(MalformedMessage) as refused:
        parse(text)
    assert str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        ("https://app.expendi.example:8443 wants", "app.expendi.example wants"),
        ("app.expendi.example:8443 wants", "[2001:db8::1]:8443 wants"),
        ("app.expendi.example:8443 wants", "[v1.fe80::a+en1] wants"),
        ("app.expendi.example:8443 wants", "someone:x@app.expendi.example wants"),
        (ADDRESS, ADDRESS.lower()),
        (ADDRESS, "0x" + ADDRESS[2:].upper()),
        ("I accept the Terms: https://app.expendi.example/tos\n", ""),
        ("Chain ID: 8453", "Chain ID: 008453"),
        ("URI: https://app.expendi.example:8443/login", "URI: did:key:z6Mk"),
        ("URI: https://app.expendi.example:8443/login", "URI: file:///a/b//c"),
        ("URI: https://app.expendi.example:8443/login", "URI: a:"),
        ("URI: https://app.expendi.example:8443/login", "URI: a:/"),
        ("Request ID: some-request_id@1", "Request ID: "),
        ("\n- urn:expendi:terms", ""),
        ("2026-11-24T16:25:24.123Z", "2026-12-31T23:59:60Z"),
        ("2026-11-24T16:25:24.123Z", "2027-01-01T00:59:60.5+01:00"),
        ("2026-11-24T16:25:24.123Z", "2026-11-24T16:25:24.123456789123-00:00"),
    ],
)
def test_every_form_of_the_grammar_is_read(change: tuple[str, str]) -> None:
    assert change[0] in GOOD
    parse(GOOD.replace(*change, 1))


def test_a_leap_second_is_the_second_after() -> None:
    text = GOOD.replace("2026-11-24T16:25:24.123Z", "2026-12-31T23:59:60.9Z")
    assert parse(text).issued_at == datetime(2027, 1, 1, tzinfo=UTC)


def test_optional_lines_may_all_be_missing() -> None:
    text = GOOD[: GOOD.index("\nExpiration")].replace(GOOD[GOOD.index("I accept") : GOOD.index("\nURI")], "")
    message = parse(text)
    assert (message.statement, message.expiration_time, message.not_before) == (None, None, None)
    assert (message.request_id, message.resources) == (None, None)


def test_an_empty_list_of_resources_differs_from_none() -> None:
    text = GOOD[: GOOD.index("Resources:")] + "Resources:"
    assert parse(text).resources == ()


def test_the_longest_message_is_read_and_one_more_character_refused() -> None:
    fill = "x" * (MAX_LENGTH - len(GOOD))
    parse(GOOD.replace("I accept", f"I accept{fill}"))
    with pytest.raises(MalformedMessage, match="longer"):
        parse(GOOD.replace("I accept", f"I accept{fill}x"))


_unreserved = string.ascii_letters + string.digits + "-._~"
_sub_delims = "!$&'()*+,;="
_pchar = st.one_of(st.sampled_from(_unreserved + _sub_delims + ":@"), st.sampled_from(["%20", "%aF"]))
_segment = st.lists(_pchar, max_size=6).map("".join)
_host = st.one_of(
    st.lists(st.sampled_from(_unreserved + _sub_delims), min_size=1, max_size=12).map("".join),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)
_domain = st.tuples(_host, st.one_of(st.just(""), st.integers(0, 65535).map(lambda port: f":{port}"))).map("".join)
_scheme = st.from_regex(r"[A-Za-z][A-Za-z0-9+.\-]{0,6}", fullmatch=True)
_path = st.lists(_segment.map(lambda segment: f"/{segment}"), max_size=3).map("".join)
_query = st.one_of(st.just(""), _segment.map(lambda text: f"?{text}/?"))
_uri = st.builds(
    lambda scheme, domain, path, query: f"{scheme}://{domain}{path}{query}", _scheme, _domain, _path, _query
)
_moment = st.datetimes(datetime(1000, 1, 2), datetime(9998, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))
_message = st.builds(
    SignInMessage,
    scheme=st.none() | _scheme,
    domain=_domain,
    address=st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex()),
    statement=st.none() | st.text(st.sampled_from(_unreserved + _sub_delims + ":/?#[]@ "), min_size=1, max_size=40),
    uri=_uri,
    chain_id=st.integers(0, 2**64),
    nonce=st.text(st.sampled_from(string.ascii_letters + string.digits), min_size=8, max_size=20),
    issued_at=_moment,
    expiration_time=st.none() | _moment,
    not_before=st.none() | _moment,
    request_id=st.none() | _segment,
    resources=st.none() | st.lists(_uri, max_size=3).map(tuple),
)


@settings(deadline=None)
@given(_message)
def test_what_wallets_write_reads_back(message: SignInMessage) -> None:
    assert parse(text_of(message)) == message


@settings(deadline=None)
@given(_message, st.data())
def test_a_changed_character_is_never_read_as_the_same_message(message: SignInMessage, data: st.DataObject) -> None:
    text = text_of(message)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters().filter(lambda c: c.lower() != text[at].lower())) + text[at + 1 :]
    with suppress(MalformedMessage):
        assert parse(changed) != message


@settings(deadline=None)
@given(st.text(max_size=300))
def test_no_text_breaks_the_parser(text: str) -> None:
    for candidate in (text, GOOD.replace("8443/login", text, 1), GOOD.replace("32891756", text)):
        with suppress(MalformedMessage):
            parse(candidate)


@settings(deadline=None)
@given(_moment, st.integers(-23 * 60, 23 * 60))
def test_a_time_means_the_same_in_every_zone(moment: datetime, minutes: int) -> None:
    there = moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat()
    assert parse(GOOD.replace("2026-11-24T16:25:24.123Z", there)).issued_at == moment


def test_checksum_of_the_examples_of_eip_55() -> None:
    for address in (
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ):
        assert checksummed(address.lower()) == address


def test_the_signer_of_the_reference_implementation_is_recovered() -> None:
    account = Account.create()
    signed = account.sign_message(encode_defunct(text=GOOD))
    assert recover(GOOD.encode(), signed.signature) == account.address.lower()


def test_both_spellings_of_the_recovery_bit_are_read() -> None:
    wallet = Wallet()
    signature = bytes.fromhex(wallet.sign(GOOD)[2:])
    assert recover(GOOD.encode(), signature) == wallet.address
    assert recover(GOOD.encode(), signature[:64] + bytes([signature[64] - 27])) == wallet.address


def test_another_text_or_a_changed_signature_is_not_the_signers() -> None:
    wallet = Wallet()
    signature = bytes.fromhex(wallet.sign(GOOD)[2:])
    assert recover(GOOD.encode() + b".", signature) != wallet.address
    assert recover(GOOD.encode(), signature[:10] + b"\x00" + signature[11:]) != wallet.address


def test_the_malleable_twin_of_a_signature_is_refused() -> None:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    signature = bytes.fromhex(Wallet().sign(GOOD)[2:])
    high = (order - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big")
    twin = signature[:32] + high + bytes([27 + (1 - (signature[64] - 27))])
    key = coincurve.PublicKey.from_signature_and_message(
        twin[:64] + bytes([twin[64] - 27]), personal_hash(GOOD.encode()), hasher=None
    )
    assert key  # the curve itself accepts it
    assert recover(GOOD.encode(), twin) is None


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"\x01" * 64,
        b"\x01" * 66,
        b"\x00" * 64 + b"\x1b",
        b"\xff" * 32 + b"\x01" * 32 + b"\x1b",
        b"\x01" * 32 + b"\x00" * 32 + b"\x1b",
        b"\x01" * 64 + b"\x02",
        b"\x01" * 64 + b"\x1d",
        b"\x01" * 64 + b"\xff",
    ],
)
def test_a_signature_that_is_none_recovers_nobody(signature: bytes) -> None:
    assert recover(b"text", signature) is None
