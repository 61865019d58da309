"""Devices over REST: register, list, remove."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from handlers import devices
from handlers.errors import NotFound
from realtime.rest.api import Body, Path, endpoint
from realtime.rest.call import Call
from realtime.rest.channels import Device, Devices, Register
from store.devices import Registration


@endpoint("POST", "/v1/devices", tag="notifications", answers=Device, writes=True, once=True)
async def register_device(call: Call, *, body: Annotated[Register, Body()]) -> Mapping[str, object]:
    """Register a device for push; the same token again brings its row up to date.

    A token that another user had is this user's from now on. When the provider gives an app a new token, send it with
    the old one as `replaces`; a token that the provider refuses is forgotten by itself.
    """
    device = Registration(
        token=body.token,
        platform=body.platform,
        locale=body.locale,
        app_version=body.app_version,
        replaces=body.replaces,
    )
    return await devices.register(call.deps, call.me.user, device)


@endpoint("GET", "/v1/devices", tag="notifications", answers=Devices, tagged=True)
async def list_devices(call: Call) -> Mapping[str, object]:
    """List the user's devices, the last registered first; tokens are never given back."""
    return {"data": await devices.listed(call.deps, call.me.user), "hasMore": False, "nextCursor": None}


@endpoint("DELETE", "/v1/devices/{id}", tag="notifications", writes=True, problems=(NotFound,))
async def remove_device(
    call: Call,
    *,
    id: Annotated[str, Path("Device id.")],  # noqa: A002 - the path's own name
) -> None:
    """Forget a device: it gets no push any more. Call it before signing out."""
    await devices.remove(call.deps, call.me.user, id)


ROUTES = (register_device, list_devices, remove_device)
