"""The mail seam: SMTP against a server on loopback, SES against moto."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import boto3  # type: ignore[import-untyped]  # ships no types
import pytest
from moto.server import ThreadedMotoServer

from config.settings import Settings
from jobs.outbound import mail
from jobs.outbound.mail import Letter, Mail, MailAway, MailRefused, Smtp, composed
from tests.conftest import MakeSettings
from tests.jobs.postbox import Postbox, postbox

SENDER = "Expendi <no-reply@expendi.example>"


def make_letter(**overrides: Any) -> Letter:
    fields: dict[str, Any] = {
        "name": "7f9c24e8",
        "to": "ann@example.com",
        "subject": "Your week – with Expendi",
        "text": "Grüße\n.\nfrom a line of its own\n",
        "html": "<p>Grüße</p>",
        "unsubscribe_url": "https://api.expendi.example/v1/unsubscribe/token",
        "at": datetime(2026, 11, 23, 8, tzinfo=UTC),
        **overrides,
    }
    return Letter(**fields)


@pytest.fixture
async def box() -> AsyncIterator[Postbox]:
    async with postbox() as box:
        yield box


async def test_letter_arrives_with_both_parts_and_one_click_headers(box: Postbox) -> None:
    await Smtp(box.url, SENDER).send(make_letter())
    [got] = box.got
    assert (got["From"], got["To"], got["Subject"]) == (SENDER, "ann@example.com", "Your week – with Expendi")
    assert got["List-Unsubscribe"] == "<https://api.expendi.example/v1/unsubscribe/token>"
    assert got["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert got["Message-ID"] == "<7f9c24e8@expendi.example>"
    text, html = got.get_body(("plain",)), got.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().replace("\r\n", "\n") == "Grüße\n.\nfrom a line of its own\n"
    assert html.get_content().strip() == "<p>Grüße</p>"
    assert box.signed_in == []


async def test_password_is_given_to_a_server_on_loopback_and_never_in_the_clear_elsewhere(box: Postbox) -> None:
    url = f"smtp://me%40here:p%2Fw@127.0.0.1:{box.port}"
    await Smtp(url, SENDER).send(make_letter())
    assert box.signed_in == ["\0me@here\0p/w"]
    assert Smtp("smtp://me:pw@mail.example:587", SENDER)._options()["start_tls"] is True
    assert Smtp("smtps://me:pw@mail.example", SENDER)._options()["use_tls"] is True
    assert Smtp("smtp://mail.example", SENDER)._options()["start_tls"] is None


@pytest.mark.parametrize(
    ("verb", "reply", "error"),
    [
        ("RCPT", "550 no such mailbox", MailRefused),
        ("RCPT", "451 try later", MailAway),
        ("MAIL", "552 no", MailRefused),
        ("delivered", "554 spam", MailRefused),
        ("delivered", "421 busy", MailAway),
        ("delivered", "hang up", MailAway),
        ("EHLO", "hang up", MailAway),
        ("AUTH", "535 wrong", MailAway),
    ],
)
async def test_refusals_are_told_from_what_passes(box: Postbox, verb: str, reply: str, error: type[Exception]) -> None:
    box.replies[verb] = [reply]
    url = box.url.replace("//", "//me:pw@")
    with pytest.raises(error):
        await Smtp(url, SENDER).send(make_letter())
    await Smtp(url, SENDER).send(make_letter())


async def test_server_that_is_not_there_is_away() -> None:
    with pytest.raises(MailAway):
        await Smtp("smtp://127.0.0.1:9", SENDER).send(make_letter())


@pytest.mark.parametrize("to", ["", "nonsense", "a@b\r\nBcc: eve@example.com", "a@b, c@d", "Ann <a@b>", "@b"])
def test_what_is_no_address_is_refused_before_anyone_is_asked(to: str) -> None:
    with pytest.raises(MailRefused):
        composed(make_letter(to=to), sender=SENDER)


def test_subject_can_add_no_header() -> None:
    message = composed(make_letter(subject="a\r\nBcc: eve@example.com"), sender=SENDER)
    assert message["Bcc"] is None
    assert message["Subject"] == "a Bcc: eve@example.com"


@pytest.fixture
async def ses(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Mail, Any]]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    await asyncio.to_thread(server.start)
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    settings: Settings = make_settings(mail_url=f"ses://eu-west-1?endpoint={url}", mail_from=SENDER)
    verifier = boto3.client("sesv2", region_name="eu-west-1", endpoint_url=url)
    async with mail.opened(settings) as provider:
        assert provider is not None
        yield provider, verifier
    verifier.close()
    await asyncio.to_thread(server.stop)


async def test_ses_takes_the_same_letter(ses: tuple[Mail, Any]) -> None:
    provider, verifier = ses
    with pytest.raises(MailRefused):  # the sender's domain is not verified yet
        await provider.send(make_letter())
    await asyncio.to_thread(verifier.create_email_identity, EmailIdentity="expendi.example")
    await provider.send(make_letter())


async def test_ses_that_is_not_there_is_away(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    settings = make_settings(mail_url="ses://eu-west-1?endpoint=http://127.0.0.1:9", mail_from=SENDER)
    async with mail.opened(settings) as provider:
        assert provider is not None
        with pytest.raises(MailAway):
            await provider.send(make_letter())


async def test_without_a_url_nobody_delivers(make_settings: MakeSettings) -> None:
    async with mail.opened(make_settings()) as provider:
        assert provider is None
