"""ClickHouse for a development machine: our HTTP front over chdb, in a process of its own."""

from __future__ import annotations

import argparse
import os
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from config.embedded import children
from config.embedded.children import Launch
from config.embedded.engine import DATABASE, Engine, EngineError


class ClickHouse(Engine):
    """A ClickHouse front with one Atomic database; `CREATE DATABASE … ENGINE = Atomic` makes more."""

    name: ClassVar[str] = "clickhouse"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port/expendi`."""
        return f"http://127.0.0.1:{self.port}/{DATABASE}"

    def _launch(self) -> Launch:
        if find_spec("chdb") is None:
            raise EngineError("clickhouse needs the package chdb-core: run `make install`.")
        command = children.python(__spec__.name, "--dir", str(self.dir), "--port", str(self.port))
        return Launch(command, cwd=children.ROOT, keep_open=self.keep_open)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=1) as response:
                return bool(response.read() == b"Ok.\n")
        except OSError:
            return False


def main() -> None:
    """Serve a folder until stopped."""
    os.environ["TZ"] = "UTC"  # the engine reads it when it is loaded; hours and days are UTC on every machine
    from config.embedded.clickhouse_front import serve  # loads half a gigabyte: only in the front's own process

    parser = argparse.ArgumentParser(prog="python -m config.embedded.clickhouse", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="folder of the data; one process at a time owns it")
    parser.add_argument("--port", type=int, required=True, help="loopback port")
    asked = parser.parse_args()
    serve(asked.dir, port=asked.port)


if __name__ == "__main__":
    main()
