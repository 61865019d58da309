"""Children: whatever ends us, and from whatever thread they were started, nothing outlives us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from config.embedded import children
from config.embedded.children import Launch
from config.settings import alive
from tests.config.family import family

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]

ALL_ENGINES = textwrap.dedent(
    """
    import json, sys, threading, time
    from pathlib import Path
    from config.embedded.chain import Anvil
    from config.embedded.clickhouse import ClickHouse
    from config.embedded.postgres import Postgres
    from config.embedded.valkey import Valkey

    engines = [make(Path(sys.argv[1])) for make in (ClickHouse, Valkey, Postgres, Anvil)]

    def start():
        for engine in engines:
            engine.begin()
        for engine in engines:
            engine.ready()

    # Started by a thread that is gone afterwards: the death signal must not be tied to it.
    starter = threading.Thread(target=start)
    starter.start()
    starter.join()
    print(json.dumps({engine.name: engine.pid for engine in engines}), flush=True)
    time.sleep(600)
    """
)


def test_a_killed_parent_takes_every_engine_with_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ALL_ENGINES, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = json.loads(parent.stdout.readline())
        assert sorted(pids) == ["anvil", "clickhouse", "postgres", "valkey"]
        below = family(parent.pid) - {parent.pid}
        assert set(pids.values()) < below  # PostgreSQL's own processes count too
        parent.kill()
    assert children.until(lambda: not any(map(alive, below)), timeout_s=10), [pid for pid in below if alive(pid)]


def test_a_child_lives_on_when_the_thread_that_asked_for_it_ends() -> None:
    started: list[subprocess.Popen[bytes]] = []
    asker = threading.Thread(target=lambda: started.append(children.spawn(Launch(SLEEPER))))
    asker.start()
    asker.join()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            started[0].wait(0.2)
    finally:
        children.kill(started[0])


def test_a_child_that_does_not_stop_is_killed_with_what_it_started() -> None:
    stubborn = "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    stubborn += "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True);"
    stubborn += "time.sleep(600)"
    reader, writer = os.pipe()
    with os.fdopen(reader) as told, os.fdopen(writer, "wb") as output:
        child = children.spawn(Launch([sys.executable, "-c", stubborn]), output=output)
        grandchild = int(told.readline())
        assert children.end(child, patience_s=0.1) == -signal.SIGKILL
    assert children.until(lambda: not alive(grandchild), timeout_s=5)


def test_ending_a_child_twice_is_no_error() -> None:
    child = children.spawn(Launch(SLEEPER))
    assert children.end(child) == -signal.SIGTERM
    assert children.end(child) == -signal.SIGTERM
    children.kill(child)
