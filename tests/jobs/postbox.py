"""A mail server on loopback that keeps what it is given: as much of SMTP as a client needs."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default


@dataclass
class Postbox:
    """Everything that was delivered, in order. `replies` override answers to a verb, in turn; "" hangs up."""

    got: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    signed_in: list[str] = field(default_factory=list)
    replies: dict[str, list[str]] = field(default_factory=dict)
    port: int = 0
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._talk(reader, writer))
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"220 postbox\r\n")
            while line := (await reader.readline()).decode().strip():
                verb = line.split()[0].upper()
                reply = self._planned(verb) or await self._reply(verb, line, reader, writer)
                if reply == "hang up":
                    return
                writer.write(reply.encode() + b"\r\n")
                if verb == "QUIT":
                    return
        finally:
            writer.close()

    def _planned(self, verb: str) -> str | None:
        planned = self.replies.get(verb)
        return planned.pop(0) if planned else None

    async def _reply(self, verb: str, line: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        if verb == "EHLO":
            return "250-postbox\r\n250 AUTH PLAIN"
        if verb == "AUTH":
            self.signed_in.append(base64.b64decode(line.split()[2]).decode())
            return "235 welcome"
        if verb == "RCPT":
            self.recipients.append(line)
        if verb == "DATA":
            writer.write(b"354 go on\r\n")
            raw = await reader.readuntil(b"\r\n.\r\n")
            message = message_from_bytes(raw.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n."), policy=default)
            assert isinstance(message, EmailMessage)
            self.got.append(message)
            return self._planned("delivered") or "250 kept"
        return "221 bye" if verb == "QUIT" else "250 well"


@asynccontextmanager
async def postbox() -> AsyncIterator[Postbox]:
    box = Postbox()
    server = await asyncio.start_server(box.accept, "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        await server.wait_closed()
        for task in box.serving:
            task.cancel()
        await asyncio.gather(*box.serving, return_exceptions=True)
