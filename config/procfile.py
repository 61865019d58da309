"""Runs the Procfile's processes beside each other and stops them in order; started by `expendi run`, `up` and `demo`.

honcho reads the file, but does not run it: processes started by honcho outlive a honcho that was killed.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from honcho.environ import parse_procfile

from config.embedded import children
from config.embedded.children import Launch


class Processes:
    """The processes of one Procfile. `logs`: folder for what each says; None lets them write to our own output."""

    def __init__(self, *, env: Mapping[str, str], logs: Path | None = None, procfile: Path | None = None) -> None:
        self._procfile = procfile or children.ROOT / "Procfile"
        self._env = env
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start every process of the file, in its order."""
        for name, command in parse_procfile(self._procfile.read_text()).processes.items():
            program, *arguments = shlex.split(command)
            # `python` means the interpreter that runs us; outside a virtual environment there may be none of that name.
            launch = Launch([sys.executable if program == "python" else program, *arguments], env=self._env)
            if self._logs is None:
                self._running[name] = children.spawn(launch)
                continue
            self._logs.mkdir(parents=True, exist_ok=True)
            with self.log(name).open("wb") as output:
                self._running[name] = children.spawn(launch, output=output)

    def log(self, name: str) -> Path:
        """File that holds what a process said."""
        return (self._logs or Path()) / f"{name}.log"

    def ended(self) -> str:
        """A sentence about a process that ended by itself; empty while all run."""
        for name, child in self._running.items():
            if child.poll() is not None:
                where = f"; see {self.log(name)}" if self._logs else ""
                return f"{name} ended by itself with exit code {child.returncode}{where}."
        return ""

    def stop(self) -> None:
        """Stop all, the last started first, in the time that one child has; what takes longer is killed."""
        deadline = time.monotonic() + children.PATIENCE_S
        while self._running:
            _, child = self._running.popitem()
            children.end(child, patience_s=max(0.1, deadline - time.monotonic()))
