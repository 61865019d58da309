"""A server that speaks both providers' protocols and does what a test says: answers, fails, or is hostile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

Reply = Callable[["FakeLlm", str, dict[str, Any]], Awaitable[web.Response]]
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


@dataclass
class FakeLlm:
    """What came in, and what goes out next; after the last reply that one is repeated."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    replies: deque[Reply] = field(default_factory=deque)
    tokens: tuple[int, int] = (1000, 200)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def then(self, *replies: Reply) -> None:
        self.replies = deque(replies)

    async def handle(self, request: web.Request) -> web.Response:
        self.raw.append(await request.text())
        self.headers.append(dict(request.headers))
        body = orjson.loads(self.raw[-1])
        self.asked.append(body)
        reply = self.replies[0] if len(self.replies) == 1 else self.replies.popleft()
        return await reply(self, request.path, body)

    def completion(self, path: str, model: str, text: object) -> web.Response:
        """A whole answer of the protocol of `path` around `text`."""
        taken, made = self.tokens
        if path == CHAT:
            body: dict[str, Any] = {
                "id": "c1",
                "object": "chat.completion",
                "created": 1,
                "model": model,
                "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": taken, "completion_tokens": made, "total_tokens": taken + made},
            }
        else:
            body = {
                "id": "m1",
                "type": "message",
                "role": "assistant",
                "model": model,
                "content": [{"type": "text", "text": text}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": taken, "output_tokens": made},
            }
        return web.json_response(body)


def payments(path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The items of a question as the model reads them."""
    text = body["messages"][-1]["content"]
    found: list[dict[str, Any]] = orjson.loads(text.removeprefix("<payments>\n").removesuffix("\n</payments>"))
    return found


def says(choose: Callable[[dict[str, Any]], str | None], confidence: object = 0.9) -> Reply:
    """Answer each item with the category that `choose` gives it; None leaves it out."""

    async def reply(fake: FakeLlm, path: str, body: dict[str, Any]) -> web.Response:
        answers = [
            {"n": item["n"], "categoryId": chosen, "confidence": confidence, "reason": "it says so"}
            for item in payments(path, body)
            if (chosen := choose(item)) is not None
        ]
        return fake.completion(path, body["model"], orjson.dumps({"answers": answers}).decode())

    return reply


def text(words: object) -> Reply:
    """Answer with these words, whatever was asked."""

    async def reply(fake: FakeLlm, path: str, body: dict[str, Any]) -> web.Response:
        return fake.completion(path, body["model"], words)

    return reply


def status(code: int, **headers: str) -> Reply:
    """Refuse with a status."""

    async def reply(_: FakeLlm, path: str, body: dict[str, Any]) -> web.Response:
        return web.json_response({"error": {"type": "x", "message": "no"}}, status=code, headers=headers)

    return reply


def body(raw: str, content_type: str = "application/json") -> Reply:
    """Answer 200 with a body that is not what the protocol asks for."""

    async def reply(_: FakeLlm, path: str, body: dict[str, Any]) -> web.Response:
        return web.Response(text=raw, content_type=content_type)

    return reply


async def hangs(fake: FakeLlm, _path: str, _body: dict[str, Any]) -> web.Response:
    """Never answer."""
    await fake.stopping.wait()
    return web.Response(status=503)


async def drips(fake: FakeLlm, _path: str, _body: dict[str, Any]) -> web.Response:
    """Send a space now and then, so that no read takes long, and never an answer."""

    async def spaces() -> AsyncIterator[bytes]:
        while not fake.stopping.is_set():
            yield b" "
            with suppress(TimeoutError):
                await asyncio.wait_for(fake.stopping.wait(), 0.05)

    return web.Response(body=spaces(), content_type="application/json")


async def cuts(_fake: FakeLlm, _path: str, _body: dict[str, Any]) -> web.Response:
    """Break the connection off before anything is said."""
    raise ConnectionResetError


@asynccontextmanager
async def fake_llm() -> AsyncIterator[FakeLlm]:
    fake = FakeLlm()

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await fake.handle(request)
        except ConnectionResetError:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

    app = web.Application()
    app.router.add_post(CHAT, handle)
    app.router.add_post(MESSAGES, handle)
    app.router.add_post("/v1/embeddings", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield fake
    finally:
        fake.stopping.set()
        await runner.cleanup()
