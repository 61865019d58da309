"""The viewer's phone in the demo: what the fake push provider says that it got."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import ClientError, ClientSession

from watchers.devnet.failure import DemoFailed

Push = Mapping[str, Any]
"""A message as the provider accepted it: token, notification, data, android, apns."""

_POLL_S = 0.2


class Phone:
    """One device with a push token. `provider` is the url of the fake one (config.embedded.fcm)."""

    def __init__(self, session: ClientSession, provider: str, token: str) -> None:
        self._session = session
        self._provider = provider.rstrip("/")
        self.token = token

    async def got(self) -> list[Push]:
        """Every push that reached this phone, in order."""
        try:
            async with self._session.get(self._provider + "/phones") as response:
                response.raise_for_status()
                everyone: list[Push] = await response.json()
        except (ClientError, TimeoutError) as error:
            raise DemoFailed(f"the push provider at {self._provider} does not answer ({error!r})") from error
        return [push for push in everyone if push["token"] == self.token]

    async def push_about(self, event_id: str, *, timeout_s: float) -> Push:
        """The push of an event, once it is there; raise DemoFailed when it does not come."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            for push in await self.got():
                if push["data"]["event_id"] == event_id:
                    return push
            if asyncio.get_running_loop().time() > deadline:
                raise DemoFailed(f"no push with event id {event_id} reached the phone within {timeout_s:g} s")
            await asyncio.sleep(_POLL_S)


def buzzed_twice(pushes: Iterable[Push]) -> list[str]:
    """Collapse keys and event ids of effects for which a phone made a sound more than once. Pure."""
    loud = [push for push in pushes if push["android"]["priority"] != "normal"]
    keys = Counter(push["android"]["collapse_key"] for push in loud)
    events = Counter(push["data"]["event_id"] for push in loud)
    return sorted(key for key, count in (keys + events).items() if count > 1)
