"""What every embedded engine has in common: a folder, a port, a log, and one way to start, answer and stop."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from signal import SIGTERM, Signals
from typing import ClassVar, Self

from config.embedded import children
from config.embedded.children import Launch

DATABASE = "expendi"
"""Name of our database in every embedded engine that has databases."""
ATTEMPTS = 3
"""Starts tried when the port was ours to choose: another process may take it between our look and the engine's bind."""
_LOG_LINES = 15


class EngineError(Exception):
    """An embedded engine can't run; the message says why and what to do."""


class Engine(ABC):
    """One engine process; `start()` returns when it answers, and starts it again on the same port after it ended."""

    name: ClassVar[str]
    stop_signal: ClassVar[Signals] = SIGTERM
    start_timeout_s: ClassVar[float] = 60

    def __init__(self, data_dir: Path, *, port: int | None = None, keep_open: tuple[int, ...] = ()) -> None:
        self.dir = data_dir.absolute() / self.name
        self.log = data_dir.absolute() / "logs" / f"{self.name}.log"
        self.keep_open = keep_open
        self._fixed = port is not None
        self.port = port or children.free_port()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @abstractmethod
    def _launch(self) -> Launch:
        """What to run, after whatever must be made first."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether a client would be served now."""

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._child.pid if self._child and self._child.poll() is None else None

    def begin(self) -> Self:
        """Start the process without waiting for it, so that engines can start beside each other."""
        if self.pid is None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            launch = self._launch()
            if self.log.exists():
                self.log.replace(self.log.with_suffix(".log.1"))  # the last run may have said why it ended
            with self.log.open("wb") as log:
                self._child = children.spawn(launch, output=log)
        return self

    def ready(self) -> Self:
        """Wait until it answers; raise EngineError with the end of its log when it ends or stays silent."""
        for attempt in range(ATTEMPTS):
            if children.until(lambda: self.pid is None or self._serves(self.pid), timeout_s=self.start_timeout_s):
                if self.pid is not None:
                    self._fixed = True  # clients know the port from now on
                    return self
                if not self._fixed and attempt < ATTEMPTS - 1:
                    self.port = children.free_port()
                    self.begin()
                    continue
            break
        self.kill()
        raise EngineError(f"{self.name} does not start; {self.log} ends with:\n{self._last_words()}")

    def _serves(self, pid: int) -> bool:
        # Whoever took our port may answer too, so look first whether it is ours.
        return children.listens(pid, self.port) and self._answers()

    def start(self) -> Self:
        """Start and wait until it answers."""
        return self.begin().ready()

    def stop(self) -> None:
        """Stop it cleanly, by force after some seconds; what it was told stays in its folder."""
        if self._child:
            children.end(self._child, ask=self.stop_signal)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._child:
            children.kill(self._child)

    def restart(self) -> Self:
        """Stop cleanly and start again on the same port."""
        self.stop()
        return self.start()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-_LOG_LINES:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
