"""What most tests of REST begin with: an application over the test's own database, and people who speak to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from handlers.deps import Deps
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime.served import Client, serving
from tests.realtime.wiring import busy, wire


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    """Wide limits; a module that needs other settings has a fixture of this name."""
    return wire(pool, busy(make_settings))


@pytest.fixture
async def anyone(deps: Deps) -> AsyncIterator[Client]:
    """Somebody who has not signed in."""
    async with serving(deps) as client:
        yield client


@pytest.fixture
async def me(anyone: Client) -> Client:
    """Somebody who has."""
    return await anyone.signed_in()
