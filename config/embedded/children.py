"""Start child processes that can't outlive us: every engine and every process of `expendi` begins here.

The kernel sends a child its death signal (PR_SET_PDEATHSIG) when the *thread* that forked it ends, so all children are
forked by one thread that lives as long as this process, whoever asks. Children get a session of their own: Ctrl-C in a
terminal then reaches only us, and we stop them in order.
"""

from __future__ import annotations

import ctypes
import functools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
"""Folder that holds our packages: the working directory in which `python -m config…` finds them."""

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.01
_OWN_PORTS = range(20_000, 32_768)
"""Below the ports that Linux gives to outgoing connections: one of those could take ours before its engine does."""
_LISTEN, _LOOPBACK = "0A", "0100007F"  # as /proc/net/tcp writes the state and 127.0.0.1


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run and how it ends."""

    command: Sequence[str | Path]
    death_signal: signal.Signals = signal.SIGKILL
    """Sent by the kernel when we are gone."""
    cwd: Path | None = None
    env: Mapping[str, str] | None = None
    keep_open: Sequence[int] = ()
    """File descriptors that the child inherits: a lock stays held until the last child is gone."""


@functools.cache
def _forker(_pid: int) -> ThreadPoolExecutor:
    """The one thread that forks, per process: a thread does not survive a fork of ours."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="forker")


def spawn(launch: Launch, *, output: IO[bytes] | int | None = None) -> subprocess.Popen[bytes]:
    """Start a child that is killed when this process ends, however it ends. `output` takes what it says; None: ours."""
    die_with_us = _die_with(os.getpid(), launch.death_signal)

    def fork() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(part) for part in launch.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            cwd=launch.cwd,
            env=launch.env,
            pass_fds=launch.keep_open,
            start_new_session=True,
            preexec_fn=die_with_us,  # safe: calls one C function, looked up before the fork
        )

    return _forker(os.getpid()).submit(fork).result()


def _die_with(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    prctl = ctypes.CDLL(None).prctl  # before the fork: after it no lock may be waited for

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # we died between fork and prctl
            os._exit(1)

    return in_child


PATIENCE_S = 15.0
"""Time a child has to stop (s): a worker ends its turn, which may wait for Redis, and gives its jobs 5 s."""


def end(child: subprocess.Popen[bytes], *, ask: signal.Signals = signal.SIGTERM, patience_s: float = PATIENCE_S) -> int:
    """Ask a child to stop, kill its whole group when it does not in time, and return its exit code."""
    if child.poll() is None:
        child.send_signal(ask)
    try:
        return child.wait(patience_s)
    except subprocess.TimeoutExpired:
        kill(child)
        return child.wait()


def kill(child: subprocess.Popen[bytes]) -> None:
    """End a child and what it started at once, without a chance to clean up."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)  # its own session, so its own group
        child.wait()


def free_port() -> int:
    """A loopback port that nobody listens on right now, and that the kernel gives to nobody who asks for any."""
    for port in random.sample(_OWN_PORTS, len(_OWN_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no port between {_OWN_PORTS[0]} and {_OWN_PORTS[-1]} is free")


def listens(pid: int, port: int) -> bool:
    """Whether that very process listens on a loopback port; True when the kernel won't let us look."""
    try:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ours = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    except PermissionError:
        return True
    except OSError:  # it ended, or closed a file while we looked
        return False
    return any(
        f"socket:[{row[9]}]" in ours for row in rows if row[3] == _LISTEN and row[1] == f"{_LOOPBACK}:{port:04X}"
    )


def until(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    """Ask until the answer is yes; False when it was not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def python(*arguments: str) -> list[str]:
    """Command of one of our modules in the interpreter that runs us."""
    return [sys.executable, "-m", *arguments]
