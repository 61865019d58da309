"""The stack: it starts what settings leave unset, says where, and keeps its folder to itself."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import settings
from config.embedded import children
from config.embedded.engine import EngineError
from config.embedded.stack import Stack
from config.settings import Settings

GIVEN = {"database_url": "postgresql://u:p@db/x", "clickhouse_url": "http://olap:8123/x"}


def asked(folder: Path, **given: str) -> Settings:
    return Settings.model_validate({"data_dir": folder, **GIVEN, **given})


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(asked(tmp_path)) as stack:
        yield stack


def told(stack: Stack) -> dict[str, object]:
    said: dict[str, object] = json.loads((stack.data_dir / settings.ENGINES_FILE).read_text())
    return said


def test_only_what_is_unset_starts_and_all_urls_are_told_privately(stack: Stack) -> None:
    assert sorted(engine.name for engine in stack.engines) == ["anvil", "valkey"]
    assert stack.devnet is not None
    said = told(stack)
    assert {name: said[name] for name in GIVEN} == GIVEN
    assert said["redis_url"] == stack.urls["redis_url"]
    assert said["rpc"] == stack.devnet.rpc
    assert said["chains_file"] == str(stack.data_dir / "devnet.toml")
    assert stat.S_IMODE((stack.data_dir / settings.ENGINES_FILE).stat().st_mode) == 0o600
    read = settings.load({"EXPENDI_DATA_DIR": str(stack.data_dir)})
    assert (read.database_url, read.redis_url) == (GIVEN["database_url"], stack.urls["redis_url"])


def test_a_chain_table_of_yours_needs_no_embedded_chain(tmp_path: Path) -> None:
    with Stack(asked(tmp_path, redis_url="redis://x", chains_file="mine.toml")) as stack:
        assert stack.engines == []
        assert stack.urls["chains_file"] == str(Path("mine.toml").absolute())


def test_a_folder_in_use_is_refused_with_its_owner(stack: Stack) -> None:
    with pytest.raises(EngineError, match=f"process {os.getpid()} already runs the engines of {stack.data_dir}"):
        Stack(asked(stack.data_dir)).start()
    assert stack.devnet is not None
    assert stack.devnet.pid is not None


def test_a_stopped_stack_leaves_its_data_and_frees_its_folder(tmp_path: Path) -> None:
    with Stack(asked(tmp_path)) as stack:
        pids = [engine.pid for engine in stack.engines]
        (tmp_path / "devnet.toml").write_text("of this chain")
    assert not (tmp_path / settings.ENGINES_FILE).exists()
    assert not any(settings.alive(pid) for pid in pids if pid)
    with Stack(asked(tmp_path)) as again:
        assert again.devnet is not None
        assert again.devnet.chain_id == 31338  # a chain in memory is gone: this is another one
        assert not (tmp_path / "devnet.toml").exists()
    assert (tmp_path / "valkey" / "appendonlydir").exists()


def test_a_fresh_stack_forgets_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir()
    (tmp_path / "valkey" / "old").write_text("")
    (tmp_path / "devnet.generation").write_text("7")
    with Stack(asked(tmp_path), fresh=True) as stack:
        assert stack.devnet is not None
        assert stack.devnet.chain_id == 31337
        assert not (tmp_path / "valkey" / "old").exists()


def test_an_engine_that_ends_is_started_again_but_a_chain_cannot_be(stack: Stack) -> None:
    valkey = next(engine for engine in stack.engines if engine.name == "valkey")
    assert stack.tend() == []
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGKILL)
    assert children.until(lambda: valkey.pid is None, timeout_s=5)
    [sentence] = stack.tend()
    assert sentence.startswith("valkey ended by itself and was started again")
    assert told(stack)["pids"] == {"stack": os.getpid(), **{engine.name: engine.pid for engine in stack.engines}}
    assert stack.devnet is not None
    stack.devnet.kill()
    with pytest.raises(EngineError, match="the devnet ended, and its chain with it"):
        stack.tend()


def test_a_start_that_fails_stops_what_had_started(tmp_path: Path) -> None:
    (tmp_path / "valkey").write_text("in the way")
    stack = Stack(asked(tmp_path))
    with pytest.raises(OSError, match="File exists"):
        stack.start()
    assert stack.devnet is not None
    assert stack.devnet.pid is None
    (tmp_path / "valkey").unlink()
    with stack:
        assert len(stack.engines) == 2
