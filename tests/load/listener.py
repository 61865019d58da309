"""An honest client for measurements: the kernel stamps what arrives, so that the reader's own delays do not count."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from urllib.parse import urlsplit

import orjson

from store.records import Address
from tests.load.attackers import CLOSE, TEXT, frame

_STAMP = 35
"""SO_TIMESTAMPNS: with each read comes the time (ns, CLOCK_REALTIME) at which its bytes arrived."""
_PONG = frame("3")
REQUEST = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aG9uZXN0IDE2IGJ5dGVzIQ==\r\n\r\n"
)


def now_ns() -> int:
    """The clock of the stamps."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


class Listener:
    """One websocket of one user. `came` holds (seq, ns) of each durable event, in order."""

    def __init__(self, user: Address) -> None:
        self.user = user
        self.start = -1
        """Seq of the snapshot; -1 before it came."""
        self.came: list[tuple[int, int]] = []
        self.closed = False
        self._rest = b""
        self._sock = socket.socket()
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.SOL_SOCKET, _STAMP, 1)

    async def connect(self, url: str, token: str, *, own_address: str) -> None:
        """Connect from an address of loopback and CONNECT; what follows is taken as it comes."""
        loop, parts = asyncio.get_running_loop(), urlsplit(url)
        self._sock.bind((own_address, 0))
        await loop.sock_connect(self._sock, (parts.hostname, parts.port))
        await loop.sock_sendall(self._sock, REQUEST)
        head = b""
        while b"\r\n\r\n" not in head:
            head += await loop.sock_recv(self._sock, 65_536)
        assert b" 101 " in head, head
        self._take(head.partition(b"\r\n\r\n")[2], 0)
        await loop.sock_sendall(self._sock, frame("40" + orjson.dumps({"token": token}).decode()))
        loop.add_reader(self._sock, self._read)

    def close(self) -> None:
        """Say nothing and go."""
        if not self.closed:
            self._end()

    def _end(self) -> None:
        self.closed = True
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def _read(self) -> None:
        try:
            data, ancillary, _, _ = self._sock.recvmsg(65_536, 64)
        except ConnectionError:
            data = b""
        if not data:
            return self._end()
        seconds, rest_ns = struct.unpack("qq", ancillary[0][2])
        return self._take(data, seconds * 1_000_000_000 + rest_ns)

    def _take(self, data: bytes, at_ns: int) -> None:
        data = self._rest + data
        at = 0
        while (head := _head(data, at)) is not None and head[1] <= len(data):
            opcode, text = data[at] & 15, data[head[0] : head[1]]
            at = head[1]
            if opcode == TEXT:
                self._packet(text, at_ns)
            elif opcode == CLOSE:
                return self._end()
        self._rest = data[at:]
        return None

    def _packet(self, text: bytes, at_ns: int) -> None:
        if text == b"2":
            self._sock.send(_PONG)
        elif text.startswith(b'42["new_transaction"'):
            self.came.append((int(text[text.rindex(b":") + 1 : -2]), at_ns))
        elif text.startswith(b'42["snapshot"'):
            self.start = orjson.loads(text[2:])[1]["seq"]


def _head(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `at` begins and ends; None while its header is cut."""
    if len(data) < at + 2:
        return None
    size = {126: 2, 127: 8}.get(data[at + 1], 0)
    start = at + 2 + size
    if len(data) < start:
        return None
    return start, start + (int.from_bytes(data[at + 2 : start], "big") if size else data[at + 1])
