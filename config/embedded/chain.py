"""Anvil from npm: a local chain that lives in memory and starts at block 0."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import ClassVar

from config.embedded import children
from config.embedded.children import Launch
from config.embedded.engine import Engine, EngineError

DEVNET_ID = 31337
"""Chain id of the devnet: the one every Ethereum tool knows as local."""
BLOCK_TIME_S = 1.0
"""Seconds between blocks of the devnet: quick enough to watch, slow enough to see each block."""
_BINARY = Path("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil")


class Anvil(Engine):
    """An anvil node. `block_time` in seconds; None mines each transaction at once."""

    name: ClassVar[str] = "anvil"

    def __init__(
        self,
        data_dir: Path,
        *,
        block_time: float | None = BLOCK_TIME_S,
        chain_id: int = DEVNET_ID,
        port: int | None = None,
        options: tuple[str, ...] = (),
        keep_open: tuple[int, ...] = (),
    ) -> None:
        super().__init__(data_dir, port=port, keep_open=keep_open)
        self.block_time = block_time
        self.chain_id = chain_id
        self.options = options

    @property
    def url(self) -> str:
        """JSON-RPC over HTTP."""
        return f"http://127.0.0.1:{self.port}"

    rpc = url

    @property
    def ws(self) -> str:
        """JSON-RPC over a websocket."""
        return f"ws://127.0.0.1:{self.port}"

    def _launch(self) -> Launch:
        interval = [] if self.block_time is None else ["--block-time", f"{self.block_time:g}"]
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--chain-id", str(self.chain_id)]
        self.dir.mkdir(parents=True, exist_ok=True)
        return Launch([binary(), *where, *interval, *self.options], cwd=self.dir, keep_open=self.keep_open)

    def _answers(self) -> bool:
        call = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
        request = urllib.request.Request(
            self.url, json.dumps(call).encode(), headers={"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=1) as response:
                return int(json.load(response)["result"], 16) == self.chain_id
        except (OSError, ValueError, KeyError):
            return False


def binary() -> Path:
    """The node's binary inside its npm package; raise EngineError when npm has not installed it."""
    path = children.ROOT / _BINARY
    if not os.access(path, os.X_OK):
        raise EngineError(f"the embedded chain needs {_BINARY}: run `make install` (Linux x86-64).")
    return path
