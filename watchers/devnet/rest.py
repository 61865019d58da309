"""The demo as a REST client: it signs in as a person, sets a budget, reads the snapshot and the log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession

from watchers.devnet.failure import DemoFailed
from watchers.devnet.person import Person, sign_in_message

READY_S = 30.0
"""How long the web process may take to be ready: it migrates nothing, but its engines may still be starting."""
_READY_POLL_S = 0.2
_PAGE = 500  # events


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a sign-in gives: `expires_in_s` is the life of the access token."""

    access: str
    refresh: str
    expires_in_s: float


class Rest:
    """One person's REST calls; every refusal is a DemoFailed that names route and problem."""

    def __init__(self, session: ClientSession, web: str) -> None:
        self._session = session
        self._web = web.rstrip("/")
        self._access = ""

    async def wait_ready(self) -> None:
        """Wait until the web process says that it is ready."""
        deadline = asyncio.get_running_loop().time() + READY_S
        while True:
            reason = await self._unready()
            if reason is None:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise DemoFailed(f"the web process at {self._web} is not ready after {READY_S:g} s: {reason}")
            await asyncio.sleep(_READY_POLL_S)

    async def sign_in(self, who: Person, *, domain: str, chain_id: int) -> Tokens:
        """Sign in with the person's key (EIP-4361)."""
        nonce = (await self._call("POST", "/v1/auth/nonce"))["nonce"]
        message = sign_in_message(who, nonce=nonce, domain=domain, uri=f"http://{domain}", chain_id=chain_id)
        signed = {"message": message, "signature": who.sign(message)}
        return self._keep(await self._call("POST", "/v1/auth/verify", json=signed))

    async def refresh(self, tokens: Tokens) -> Tokens:
        """Get new tokens for old ones."""
        return self._keep(await self._call("POST", "/v1/auth/refresh", json={"refreshToken": tokens.refresh}))

    async def snapshot(self) -> dict[str, Any]:
        """The user's state as of now."""
        return await self._call("GET", "/v1/snapshot")

    async def events(self, *, epoch: str, after: int) -> list[dict[str, Any]]:
        """The user's log after a seq: `{event, payload}` each, in order."""
        found: list[dict[str, Any]] = []
        while True:
            params = {"epoch": epoch, "after": str(after), "limit": str(_PAGE)}
            page = (await self._call("GET", "/v1/events", params=params))["data"]
            if not page:
                return found
            found += page
            after = int(page[-1]["payload"]["seq"])

    async def register_device(self, token: str) -> None:
        """Have pushes sent to a phone."""
        await self._call("POST", "/v1/devices", json={"token": token, "platform": "android"})

    async def set_budget(self, category_id: str, *, dollars: int) -> None:
        """Set the monthly budget of a category."""
        budget = {"scope": "category", "categoryId": category_id, "monthlyBudget": str(dollars)}
        await self._call("PUT", "/v1/budgets", json=budget)

    def _keep(self, body: dict[str, Any]) -> Tokens:
        self._access = body["accessToken"]
        return Tokens(self._access, body["refreshToken"], float(body["expiresIn"]))

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._access}"} if self._access else {}
        try:
            async with self._session.request(method, self._web + path, headers=headers, **options) as response:
                if response.status >= 400:
                    raise DemoFailed(f"{method} {path} answered {response.status}: {await _detail(response)}")
                body: dict[str, Any] = await response.json()
                return body
        except (ClientError, TimeoutError) as error:
            raise DemoFailed(f"{method} {path}: the web process does not answer ({error!r})") from error

    async def _unready(self) -> str | None:
        try:
            async with self._session.get(self._web + "/readyz") as response:
                return None if response.status == 200 else f"/readyz answered {response.status}"
        except (ClientError, TimeoutError) as error:
            return repr(error)


async def _detail(response: ClientResponse) -> str:
    text = await response.text()
    return text[:500]
