"""Every REST route of the product, in the order of the documentation."""

from __future__ import annotations

from realtime.rest import auth, chains, history, me, operations
from realtime.rest.api import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *auth.ROUTES,
    *me.ROUTES,
    *chains.ROUTES,
    *history.ROUTES,
    *operations.ROUTES,
)
