"""Firebase Cloud Messaging over the official client: one message, many tokens, what became of each.

The client's own retries are off (the push job has better ones, which survive the process), and its access token is
fetched in a thread beforehand: it would block the event loop.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import firebase_admin
import httpx
from firebase_admin import _retry, credentials, exceptions, messaging
from google.auth.credentials import TokenState
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request

from config.settings import SettingsError, variable
from jobs.outbound.push import Message, Outcome

CHUNK = 500
"""Tokens of one call: the client's own limit."""
TIMEOUT_S = 5
"""Time one request may take (s); what became of it is not known then, and it is sent again under its key."""
MESSAGES = "{url}/v1/projects/{project}/messages:send"


class Fcm:
    """A client of one project; `opened` makes and closes it."""

    def __init__(self, app: firebase_admin.App, *, url: str) -> None:
        # Firebase Installation IDs are to replace tokens; until the apps send them, tokens it is.
        warnings.filterwarnings("ignore", r"(Multicast)?Message\.tokens? is deprecated", DeprecationWarning)
        self._app = app
        self._token = app.credential.get_credential()
        self._refreshing = asyncio.Lock()
        service = messaging._get_messaging_service(app)
        self._client = service._async_client
        self._client.async_client.auth = _Bearer(self._token)
        for transport in self._client._mounts.values():
            transport._retry = _retry.HttpxRetry(max_retries=0)
        if url:
            service._fcm_url = MESSAGES.format(url=url.rstrip("/"), project=app.project_id)

    async def send(self, message: Message, tokens: Sequence[str]) -> list[Outcome]:
        """Send to every token; outcomes in their order. Raises nothing for what the provider or the network does."""
        outcomes: list[Outcome] = []
        for first in range(0, len(tokens), CHUNK):
            outcomes += await self._send(message, tokens[first : first + CHUNK])
        return outcomes

    async def _send(self, message: Message, tokens: Sequence[str]) -> list[Outcome]:
        try:
            await self._authorize()
            answers = await messaging.send_each_for_multicast_async(_multicast(message, tokens), app=self._app)
        except (GoogleAuthError, exceptions.FirebaseError, OSError) as error:
            return [Outcome("later", f"{type(error).__name__}: {error}"[:200])] * len(tokens)
        if any(isinstance(answer.exception, exceptions.UnauthenticatedError) for answer in answers.responses):
            self._token.token = None  # whatever its age says
        return [Outcome("sent") if answer.success else _outcome(answer.exception) for answer in answers.responses]

    async def _authorize(self) -> None:
        async with self._refreshing:
            if self._token.token_state is not TokenState.FRESH:
                async with asyncio.timeout(TIMEOUT_S):
                    await asyncio.to_thread(_refresh, self._token)

    async def close(self) -> None:
        """Close connections; nothing may be sent after."""
        await self._client.aclose()
        # It runs an event loop of its own to close what is closed already.
        await asyncio.to_thread(firebase_admin.delete_app, self._app)


class _Bearer(httpx.Auth):
    """The access token as it is; the client's own way fetches a new one in the middle of a request, and blocks."""

    def __init__(self, token: Any) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header."""
        request.headers["Authorization"] = f"Bearer {self._token.token}"
        yield request


@asynccontextmanager
async def opened(path: Path, *, url: str = "") -> AsyncIterator[Fcm]:
    """A client for the service account in a file; `url` replaces the provider's address (a fake one).

    Raises SettingsError when the file is no service account.
    """
    fcm = Fcm(_app(path), url=url)
    try:
        yield fcm
    finally:
        await fcm.close()


def _app(path: Path) -> firebase_admin.App:
    try:
        account = credentials.Certificate(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{variable('fcm_credentials')} names no service account file ({error}).") from error
    return firebase_admin.initialize_app(account, {"httpTimeout": TIMEOUT_S}, name=f"expendi-{uuid4().hex}")


def _refresh(token: Any) -> None:
    request = Request()
    try:
        token.refresh(request)
    finally:
        request.session.close()


def _multicast(message: Message, tokens: Sequence[str]) -> messaging.MulticastMessage:
    key, seconds = message.collapse_key, str(int(message.ttl.total_seconds()))
    return messaging.MulticastMessage(
        tokens=list(tokens),
        data=dict(message.data),
        notification=messaging.Notification(title=message.title, body=message.body),
        android=messaging.AndroidConfig(
            collapse_key=key,
            priority="normal" if message.silent else "high",
            ttl=message.ttl,
            # The tag makes a later push of the key take the place of an earlier one that the phone shows already.
            notification=messaging.AndroidNotification(
                tag=key,
                icon=message.icon,
                color=message.colour,
                notification_count=message.badge,
                priority="min" if message.silent else "high",
            ),
        ),
        apns=messaging.APNSConfig(
            headers={
                "apns-collapse-id": key,
                "apns-expiration": str(message.expires_at),
                "apns-priority": "5" if message.silent else "10",
            },
            payload=messaging.APNSPayload(aps=_aps(message)),
        ),
        webpush=messaging.WebpushConfig(
            headers={"TTL": seconds, "Topic": key, "Urgency": "low" if message.silent else "high"},
            notification=messaging.WebpushNotification(tag=key, renotify=not message.silent, silent=message.silent),
        ),
    )


def _aps(message: Message) -> messaging.Aps:
    if message.silent:
        return messaging.Aps(badge=message.badge, custom_data={"interruption-level": "passive"})
    return messaging.Aps(badge=message.badge, sound="default")


def _outcome(error: Exception) -> Outcome:
    """What a refusal means. A timeout or a lost answer says nothing about the phone: `later` sends it again."""
    reason = f"{type(error).__name__}: {error}"[:200]
    if isinstance(error, messaging.UnregisteredError | messaging.SenderIdMismatchError):
        return Outcome("gone", reason)
    if isinstance(error, exceptions.InvalidArgumentError):
        return Outcome("refused", reason)
    return Outcome("later", reason, _retry_after_s(error))


def _retry_after_s(error: Exception) -> float | None:
    response = getattr(error, "http_response", None)
    try:
        return None if response is None else float(response.headers.get("Retry-After", ""))
    except ValueError:  # absent, or a date: then our own pause is as good
        return None
