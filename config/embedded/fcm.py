"""A fake Firebase Cloud Messaging for tests and the demo: OAuth tokens, `messages:send`, and phones that remember.

Spoken to by the unmodified firebase-admin. A test programs what each token answers; everything accepted is kept, in
order. `python -m config.embedded.fcm --dir FOLDER --port PORT` runs it for the demo: GET /phones tells what they show.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import orjson
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from config.embedded import children
from config.embedded.children import Launch
from config.embedded.engine import Engine

PROJECT = "expendi-fake"
CREDENTIALS = "service-account.json"
PAYLOAD_BYTES = 4096
"""Largest notification and data together (bytes), as the real one has it."""
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a send is answered: status, FCM's error code, Retry-After (s). `lost`: delivered, then cut off."""

    status: int = 200
    code: str | None = None
    retry_after_s: int | None = None
    lost: bool = False


OK = Answer()
UNREGISTERED = Answer(404, "UNREGISTERED")
QUOTA = Answer(429, "QUOTA_EXCEEDED", retry_after_s=30)
UNAVAILABLE = Answer(503, "UNAVAILABLE")
LOST = Answer(lost=True)


@dataclass(slots=True)
class FakeFcm:
    """The provider and every phone behind it."""

    got: list[dict[str, Any]] = field(default_factory=list)
    """Messages that reached phones, in order, as the client sent them."""
    asked: list[str] = field(default_factory=list)
    """Tokens of every send, refused ones too."""
    token_requests: int = 0
    planned: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    url: str = ""
    credentials: Path = Path()

    def plan(self, token: str, *answers: Answer) -> None:
        """Answer the next sends to a token like this, in turn; after them all is well."""
        self.planned[token] += answers

    def shown(self, token: str) -> dict[str, dict[str, Any]]:
        """What a phone shows: the last message of each collapse key."""
        return {_key(message): message for message in self.got if message["token"] == token}

    def buzzes(self, token: str) -> list[str]:
        """Collapse key of each message that made a sound, in order; a repeat of what the phone has makes none."""
        heard: list[str] = []
        for message in self.got:
            if message["token"] == token and not _is_silent(message) and _key(message) not in heard:
                heard.append(_key(message))
        return heard

    def doubles(self) -> int:
        """Loud messages that repeated a key to a phone that had it: what an unknown outcome costs."""
        loud = [(message["token"], _key(message)) for message in self.got if not _is_silent(message)]
        return len(loud) - len(set(loud))

    def app(self) -> web.Application:
        """Its routes."""
        app = web.Application()
        app.router.add_post("/token", self._token)
        app.router.add_post("/v1/projects/{project}/messages:send", self._send)
        app.router.add_get("/phones", self._phones)
        return app

    async def _token(self, request: web.Request) -> web.Response:
        assert "assertion" in await request.post()
        self.token_requests += 1
        return web.json_response({"access_token": "fake", "expires_in": 3600, "token_type": "Bearer"})

    async def _send(self, request: web.Request) -> web.Response:
        message: dict[str, Any] = orjson.loads(await request.read())["message"]
        token = message["token"]
        self.asked.append(token)
        refusal = _refusal(request, message)
        answer = refusal or (self.planned[token].pop(0) if self.planned[token] else OK)
        if answer.status == 200:
            self.got.append(message)
        if answer.lost:
            assert request.transport is not None
            request.transport.abort()
        if answer.status == 200:
            return web.json_response({"name": f"projects/{PROJECT}/messages/{len(self.got)}"})
        return _error(answer)

    async def _phones(self, _: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(self.got), content_type="application/json")


def _refusal(request: web.Request, message: Mapping[str, Any]) -> Answer | None:
    """What the real one refuses whatever a test plans."""
    if request.headers.get("Authorization") != "Bearer fake":
        return Answer(401, "UNAUTHENTICATED")
    strings = all(isinstance(value, str) for value in message.get("data", {}).values())
    size = len(orjson.dumps([message.get("notification"), message.get("data")]))
    return None if strings and size <= PAYLOAD_BYTES else Answer(400, "INVALID_ARGUMENT")


def _error(answer: Answer) -> web.Response:
    names = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
    error = {
        "code": answer.status,
        "message": answer.code,
        "status": names.get(answer.status, "UNAVAILABLE" if answer.status == 503 else "INTERNAL"),
        "details": [{"@type": _FCM_ERROR, "errorCode": answer.code}],
    }
    headers = {} if answer.retry_after_s is None else {"Retry-After": str(answer.retry_after_s)}
    return web.json_response({"error": error}, status=answer.status, headers=headers)


def _key(message: Mapping[str, Any]) -> str:
    return str(message["android"]["collapse_key"])


def _is_silent(message: Mapping[str, Any]) -> bool:
    return bool(message["android"]["priority"] == "normal")


@cache
def _private_key() -> str:
    """A key to sign with, which nobody checks; drawing one takes up to a second."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def write_credentials(folder: Path, url: str) -> Path:
    """A service account of the fake, with a key that only this process has."""
    account = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "1",
        "private_key": _private_key(),
        "client_email": f"push@{PROJECT}.example",
        "client_id": "1",
        "token_uri": f"{url}/token",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CREDENTIALS
    path.write_bytes(orjson.dumps(account))
    return path


@asynccontextmanager
async def serving(folder: Path, *, port: int = 0) -> AsyncIterator[FakeFcm]:
    """The fake in this process's loop until the end of the block; its credentials are in `folder`."""
    fake = FakeFcm()
    runner = web.AppRunner(fake.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        fake.credentials = write_credentials(folder, fake.url)
        yield fake
    finally:
        await runner.cleanup()


class Fcm(Engine):
    """The fake as a process of its own, for the demo."""

    name: ClassVar[str] = "fcm"

    @property
    def url(self) -> str:
        """Value of EXPENDI_FCM_URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> Path:
        """Value of EXPENDI_FCM_CREDENTIALS."""
        return self.dir / CREDENTIALS

    def got(self) -> list[dict[str, Any]]:
        """Messages that reached phones, in order."""
        with urllib.request.urlopen(f"{self.url}/phones", timeout=5) as response:
            found: list[dict[str, Any]] = json.load(response)
            return found

    def _launch(self) -> Launch:
        self.dir.mkdir(parents=True, exist_ok=True)
        command = children.python(__spec__.name, "--dir", str(self.dir), "--port", str(self.port))
        return Launch(command, cwd=children.ROOT, keep_open=self.keep_open)

    def _answers(self) -> bool:
        try:
            self.got()
        except (OSError, ValueError):
            return False
        return self.credentials.exists()


async def _forever(folder: Path, port: int) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with serving(folder, port=port):
        await stop.wait()


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m config.embedded.fcm", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    asyncio.run(_forever(asked.dir, asked.port))


if __name__ == "__main__":
    main()
