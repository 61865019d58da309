"""All embedded engines of one data folder: starts what settings leave unset, tells where it is, stops it in order."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Self

from config.embedded import children
from config.embedded.chain import DEVNET_ID, Anvil
from config.embedded.clickhouse import ClickHouse
from config.embedded.engine import Engine, EngineError
from config.embedded.postgres import Postgres
from config.embedded.valkey import Valkey
from config.settings import EMBEDDED, ENGINES_FILE, Settings, alive

LOCK = "lock"
DEVNET_TABLE = "devnet.toml"
_GENERATION = "devnet.generation"
_DYING_S = 20
"""Longest time the engines of a killed parent may take to end (s): PostgreSQL writes its last checkpoint."""


class Stack:
    """The engines that settings leave unset, on one data folder that nobody else uses.

    `fresh` empties the folder first. Raises EngineError when the folder is in use or an engine does not start.
    """

    def __init__(self, settings: Settings, *, fresh: bool = False) -> None:
        self.settings = settings
        self.data_dir = settings.data_dir.absolute()
        self.engines: list[Engine] = []
        self.devnet: Anvil | None = None
        self._fresh = fresh
        self._lock: int | None = None

    @property
    def chains_file(self) -> Path:
        """The chain table in use: the settings', or the devnet's, which exists once its contracts are deployed."""
        return (self.settings.chains_file or self.data_dir / DEVNET_TABLE).absolute()

    @property
    def urls(self) -> dict[str, str]:
        """Value of every setting that an engine answers, by field name."""
        given = {field: str(getattr(self.settings, field) or "") for field in EMBEDDED}
        embedded = {_FIELDS[type(engine)]: engine.url for engine in self.engines if type(engine) in _FIELDS}
        return {**given, **embedded, "chains_file": str(self.chains_file)}

    def start(self) -> Self:
        """Start the engines beside each other and write where they are."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = _take(self.data_dir / LOCK)
        try:
            if self._fresh:
                _empty(self.data_dir)
            self._begin()
            for engine in self.engines:
                engine.ready()
            self._tell()
        except BaseException:
            self.stop()
            raise
        return self

    def _begin(self) -> None:
        keep_open = (self._lock,) if self._lock is not None else ()
        # The slowest first; PostgreSQL last, since making its cluster holds us up.
        makers: dict[str, Callable[[], Engine]] = {
            "clickhouse_url": lambda: ClickHouse(self.data_dir, keep_open=keep_open),
            "chains_file": lambda: self._new_devnet(keep_open),
            "redis_url": lambda: Valkey(self.data_dir, keep_open=keep_open),
            "database_url": lambda: Postgres(self.data_dir, keep_open=keep_open),
        }
        for field, make in makers.items():
            if not getattr(self.settings, field):
                engine = make()
                self.engines.append(engine)
                engine.begin()

    def _new_devnet(self, keep_open: tuple[int, ...]) -> Anvil:
        """A chain in memory is another chain each time, so it gets another id: what was followed before stays true."""
        (self.data_dir / DEVNET_TABLE).unlink(missing_ok=True)
        counter = self.data_dir / _GENERATION
        generation = int(counter.read_text()) if counter.exists() else 0
        counter.write_text(str(generation + 1))
        self.devnet = Anvil(self.data_dir, chain_id=DEVNET_ID + generation, keep_open=keep_open)
        return self.devnet

    def _tell(self) -> None:
        pids = {"stack": os.getpid(), **{engine.name: engine.pid for engine in self.engines}}
        nodes = {"rpc": self.devnet.rpc, "ws": self.devnet.ws} if self.devnet else {}
        text = json.dumps({**self.urls, **nodes, "pids": pids}, indent=2)
        handle, draft = tempfile.mkstemp(dir=self.data_dir)  # mode 0600: given urls may hold passwords
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(draft).replace(self.data_dir / ENGINES_FILE)

    def tend(self) -> list[str]:
        """Start engines that ended by themselves again, on the same port; returns a sentence for each."""
        ended = [engine for engine in self.engines if engine.pid is None]
        if self.devnet in ended:
            raise EngineError(f"the devnet ended, and its chain with it; see {self.devnet.log}.")
        for engine in ended:
            engine.start()
        if ended:
            self._tell()
        return [f"{engine.name} ended by itself and was started again; see {engine.log}." for engine in ended]

    def stop(self) -> None:
        """Stop the engines, the last started first, and free the folder."""
        if self._lock is None:
            return
        (self.data_dir / ENGINES_FILE).unlink(missing_ok=True)
        for engine in reversed(self.engines):
            engine.stop()
        self.engines = []
        os.close(self._lock)
        self._lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


_FIELDS: dict[type[Engine], str] = {
    Postgres: "database_url",
    Valkey: "redis_url",
    ClickHouse: "clickhouse_url",
}


def _take(lock: Path) -> int:
    """Lock a data folder. The engines inherit the lock, so it is free only when the last of them has ended."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not children.until(lambda: _taken(handle, lock), timeout_s=_DYING_S):
            raise EngineError(
                f"engines of an earlier run still use {lock.parent}; `fuser {lock}` names their processes."
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _taken(handle: int, lock: Path) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    owner = int(os.pread(handle, 32, 0) or 0)
    if owner and alive(owner):
        raise EngineError(
            f"process {owner} already runs the engines of {lock.parent}: use those, stop it, "
            "or set EXPENDI_DATA_DIR to another folder."
        )
    return False  # its parent was killed a moment ago, or it has not yet written its name


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
