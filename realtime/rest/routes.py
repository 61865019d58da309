"""Every REST route of the product, in the order of the documentation."""

from __future__ import annotations

from realtime.rest import (
    accounts,
    ai,
    analytics,
    auth,
    budgets,
    categories,
    chains,
    devices,
    exports,
    friends,
    goals,
    history,
    media,
    memos,
    notifications,
    operations,
    people,
    portfolio,
    summary,
    unsubscribe,
    usage,
    v1,
)
from realtime.rest.api import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *auth.ROUTES,
    *people.ROUTES,
    *ai.ROUTES,
    *chains.ROUTES,
    *accounts.ROUTES,
    *exports.ROUTES,
    *history.ROUTES,
    *budgets.ROUTES,
    *analytics.ROUTES,
    *summary.ROUTES,
    *portfolio.ROUTES,
    *categories.ROUTES,
    *goals.ROUTES,
    *friends.ROUTES,
    *media.ROUTES,
    *memos.ROUTES,
    *notifications.ROUTES,
    *devices.ROUTES,
    *unsubscribe.ROUTES,
    *usage.ROUTES,
    *v1.ROUTES,
    *operations.ROUTES,
)
