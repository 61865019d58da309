"""Every REST route of the product, in the order of the documentation."""

from __future__ import annotations

from realtime.rest import auth, chains, devices, history, memos, notifications, operations, people
from realtime.rest.api import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *auth.ROUTES,
    *people.ROUTES,
    *chains.ROUTES,
    *history.ROUTES,
    *memos.ROUTES,
    *notifications.ROUTES,
    *devices.ROUTES,
    *operations.ROUTES,
)
