"""The node that a test of the watchers talks to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.watchers.node import ScriptedNode


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode() as node:
        yield node
