"""The seam of e-mail: one letter, sent by SMTP or by Amazon SES, with what mail programs need to unsubscribe.

`EXPENDI_MAIL_URL` chooses: `smtp://user:password@host:587` (STARTTLS, compulsory with a password), `smtps://` (TLS from
the start), `ses://region`. SendGrid is `smtp://apikey:<key>@<its relay>:587`. Whoever delivers has to sign with DKIM
and cover both List-Unsubscribe headers (RFC 8058).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address as Mailbox
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import aiosmtplib
from aiobotocore.config import AioConfig  # type: ignore[import-untyped]  # ships no types
from aiobotocore.session import get_session  # type: ignore[import-untyped]  # ships no types
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]  # ships no types

from config.settings import Settings

TIMEOUT_S = 15.0
"""Time one letter may take (s)."""
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
PASSING = {"TooManyRequestsException", "LimitExceededException", "ThrottlingException", "Throttling"}
"""Refusals of SES that pass; so does every one with a status of 500 and above."""


class MailAway(Exception):
    """The letter could not be handed over, or nobody knows whether it was: try again later."""


class MailRefused(Exception):
    """The letter will not be taken: the address or the letter is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A letter ready to go. `name` makes its Message-ID: the same letter sent twice is shown once."""

    name: str
    to: str
    subject: str
    text: str
    html: str
    unsubscribe_url: str
    at: datetime


class Mail(Protocol):
    """Who delivers letters."""

    async def send(self, letter: Letter) -> None:
        """Hand a letter over; raises MailAway or MailRefused."""
        ...


def composed(letter: Letter, *, sender: str) -> EmailMessage:
    """The letter as it travels; raises MailRefused for an address that is none."""
    name, address = parseaddr(sender)
    message = EmailMessage(policy=SMTP)
    try:
        message["From"] = Mailbox(display_name=name, addr_spec=address)
        message["To"] = Mailbox(addr_spec=letter.to)
    except (MessageError, ValueError, IndexError) as error:
        raise MailRefused("the address is none") from error
    message["Subject"] = " ".join(letter.subject.split())
    message["Date"] = format_datetime(letter.at)
    message["Message-ID"] = f"<{letter.name}@{address.rpartition('@')[2]}>"
    message["List-Unsubscribe"] = f"<{letter.unsubscribe_url}>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text)
    message.add_alternative(letter.html, subtype="html")
    return message


@dataclass(frozen=True, slots=True)
class Smtp:
    """Delivers to an SMTP server, one connection per letter: there are few."""

    url: str
    sender: str
    trust: ssl.SSLContext | None = None

    async def send(self, letter: Letter) -> None:
        """Hand a letter over; raises MailAway or MailRefused."""
        try:
            await aiosmtplib.send(composed(letter, sender=self.sender), **self._options())
        except aiosmtplib.SMTPRecipientsRefused as error:
            _refused(max(each.code for each in error.recipients), error)
        except aiosmtplib.SMTPResponseException as error:
            # A refused sign-in is our fault and passes once it is put right.
            _refused(0 if isinstance(error, aiosmtplib.SMTPAuthenticationError) else error.code, error)
        except (aiosmtplib.SMTPException, OSError) as error:
            raise MailAway(repr(error)) from error

    def _options(self) -> dict[str, Any]:
        parts = urlsplit(self.url)
        is_safe = parts.scheme == "smtps" or (parts.hostname or "") in LOOPBACK
        return {
            "hostname": parts.hostname,
            "port": parts.port,
            "username": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
            "use_tls": parts.scheme == "smtps",
            # None: as the server offers. A password never travels in the clear.
            "start_tls": True if parts.password and not is_safe else None,
            "tls_context": self.trust,
            "timeout": TIMEOUT_S,
        }


def _refused(code: int, error: Exception) -> None:
    if 500 <= code < 600:
        raise MailRefused(str(error)[:200]) from error
    raise MailAway(str(error)[:200]) from error


@dataclass(frozen=True, slots=True)
class Ses:
    """Delivers by Amazon SES (v2) as raw messages; who we are there is the machine's own AWS identity."""

    client: Any
    sender: str

    async def send(self, letter: Letter) -> None:
        """Hand a letter over; raises MailAway or MailRefused."""
        raw = composed(letter, sender=self.sender).as_bytes()
        try:
            await self.client.send_email(Content={"Raw": {"Data": raw}})
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            passes = code in PASSING or status >= 500
            raise (MailAway if passes else MailRefused)(str(error)[:200]) from error
        except (BotoCoreError, OSError) as error:
            raise MailAway(repr(error)[:200]) from error


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Mail | None]:
    """Who delivers letters, as the settings say; None: nobody."""
    parts = urlsplit(settings.mail_url.get_secret_value())
    if not parts.scheme:
        yield None
    elif parts.scheme == "ses":
        endpoint = parse_qs(parts.query).get("endpoint", [None])[0]
        limits = AioConfig(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 1})
        session = get_session()
        async with session.create_client(
            "sesv2", region_name=parts.netloc, endpoint_url=endpoint, config=limits
        ) as client:
            yield Ses(client, settings.mail_from)
    else:
        yield Smtp(settings.mail_url.get_secret_value(), settings.mail_from)
