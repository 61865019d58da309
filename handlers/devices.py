"""Devices of a user: registered, rotated, listed and removed. The token goes in and never comes back."""

from __future__ import annotations

from uuid import UUID

from handlers.deps import Deps
from handlers.errors import NotFound
from handlers.rules.periods import iso
from store import devices
from store.devices import DeviceRow, Registration
from store.postgres import in_transaction
from store.records import Address
from store.sealed import KeyRing


async def register(deps: Deps, user: Address, device: Registration) -> dict[str, object]:
    """Register a device, or bring it up to date when its token is known."""
    ring = KeyRing.of(deps.settings)
    row = await in_transaction(deps.pool, lambda tx: devices.register(tx, ring, user, device, at=deps.now()))
    return _resource(row)


async def listed(deps: Deps, user: Address) -> list[dict[str, object]]:
    """A user's devices, the last registered first; there are few."""
    return [_resource(row) for row in await devices.listed(deps.pool, user)]


async def remove(deps: Deps, user: Address, id_: str) -> None:
    """Forget a device; raises NotFound for anything that is not the user's own."""
    try:
        removed = await devices.remove(deps.pool, user, UUID(id_))
    except ValueError:
        removed = False
    if not removed:
        raise NotFound("You have no device of this id.")


def _resource(row: DeviceRow) -> dict[str, object]:
    return {
        "id": str(row.id),
        "platform": row.platform,
        "locale": row.locale,
        "appVersion": row.app_version,
        "createdAt": iso(row.created_at),
        "updatedAt": iso(row.updated_at),
    }
