"""Every REST route of the product, in the order of the documentation."""

from __future__ import annotations

from realtime.rest import auth, chains, devices, history, me, notifications, operations
from realtime.rest.api import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *auth.ROUTES,
    *me.ROUTES,
    *chains.ROUTES,
    *history.ROUTES,
    *notifications.ROUTES,
    *devices.ROUTES,
    *operations.ROUTES,
)
