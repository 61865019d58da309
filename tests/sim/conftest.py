"""Engines of simulated runs: this test process's PostgreSQL, and a Valkey that runs may flush."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.embedded.valkey import Valkey
from tests.conftest import Engines as TestEngines
from tests.sim.engines import Engines


@pytest.fixture(scope="session")
def sim_engines(engines: TestEngines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with Valkey(tmp_path_factory.mktemp("sim")) as valkey:
        yield Engines(engines.postgres, valkey)
