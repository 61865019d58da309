from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from handlers.rules.sign_in import Policy, SignInMessage, refusal

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
POLICY = Policy(
    domain="app.expendi.example", uris=(), chain_ids={8453}, nonce_life=timedelta(minutes=5), loopback=False
)
GOOD = SignInMessage(
    domain="app.expendi.example",
    address="0x" + "11" * 20,
    uri="https://app.expendi.example/login",
    chain_id=8453,
    nonce="12345678",
    issued_at=NOW,
)


def reason(policy: Policy = POLICY, **changes: object) -> str | None:
    refused = refusal(replace(GOOD, **changes), policy, now=NOW)  # type: ignore[arg-type]  # fields by name
    return None if refused is None else refused.reason


def test_a_good_message_is_believed() -> None:
    assert reason() is None
    assert reason(scheme="https") is None
    assert reason(scheme="HTTPS", domain="APP.expendi.example") is None


@pytest.mark.parametrize(
    "domain",
    ["expendi.example", "evil.app.expendi.example", "app.expendi.example.evil", "app.expendi.example:8443",
     "x@app.expendi.example", "localhost", "localhost:3000"],
)  # fmt: skip
def test_another_domain_is_refused(domain: str) -> None:
    assert reason(domain=domain) == "domain"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://app.expendi.example", None),
        ("https://app.expendi.example:443/x?y#z", None),
        ("http://app.expendi.example/", None),
        ("HTTPS://APP.EXPENDI.EXAMPLE/", None),
        ("https://app.expendi.example:8443/", "uri"),
        ("https://app.expendi.example.evil/", "uri"),
        ("https://app.expendi.example@evil.example/", "uri"),
        ("https://x@app.expendi.example/", "uri"),
        ("ftp://app.expendi.example/", "uri"),
        ("urn:app.expendi.example", "uri"),
        ("https://app.expendi.example:99999/", "uri"),
        ("https:///app.expendi.example", "uri"),
        ("http://localhost/", "uri"),
    ],
)
def test_the_uri_is_on_the_domain(uri: str, expected: str | None) -> None:
    assert reason(uri=uri) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://expendi.example/app", None),
        ("https://expendi.example/app/", None),
        ("https://expendi.example/app/login", None),
        ("https://expendi.example/application", "uri"),
        ("https://expendi.example/", "uri"),
        ("http://expendi.example/app", "uri"),
        ("https://wallet.example/anything", None),
        ("https://wallet.example", None),
        ("https://app.expendi.example/", "uri"),
    ],
)
def test_listed_uris_replace_the_domains_own(uri: str, expected: str | None) -> None:
    policy = replace(POLICY, uris=("https://expendi.example/app", "https://wallet.example"))
    assert reason(policy, uri=uri) == expected


@pytest.mark.parametrize("host", ["localhost", "localhost:3000", "127.0.0.1:8080", "[::1]:80", "[::1]"])
def test_the_developers_own_machine_is_accepted_in_development_only(host: str) -> None:
    policy = replace(POLICY, loopback=True)
    assert reason(policy, domain=host, uri=f"http://{host}/x") is None
    assert reason(domain=host) == "domain"
    assert reason(uri=f"http://{host}/x") == "uri"


@pytest.mark.parametrize(
    "host", ["localhost.evil", "localhost:x", "127.0.0.1.evil", "[::1].evil", "x@localhost", "::1"]
)
def test_what_only_looks_like_the_own_machine_is_refused(host: str) -> None:
    assert reason(replace(POLICY, loopback=True), domain=host) == "domain"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, None), (60, None), (61, "issued_at"), (-360, None), (-361, "issued_at")]
)
def test_issued_at_is_close_to_now(seconds: int, expected: str | None) -> None:
    assert reason(issued_at=NOW + timedelta(seconds=seconds)) == expected


def test_expiry_and_beginning_are_exact() -> None:
    assert reason(expiration_time=NOW) == "expired"
    assert reason(expiration_time=NOW + timedelta(milliseconds=1)) is None
    assert reason(not_before=NOW + timedelta(milliseconds=1)) == "not_before"
    assert reason(not_before=NOW) is None


def test_other_schemes_and_chains_are_refused() -> None:
    assert reason(scheme="ftp") == "scheme"
    assert reason(chain_id=1) == "chain_id"
