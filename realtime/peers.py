"""Who is at the other end: the address by the trusted proxy chain, and whether a page's origin may connect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from aiohttp import web

from config.settings import Settings
from realtime.ports import RequestFacts

AGENT_CHARS = 256
"""Characters of a user agent that are kept."""
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

_Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Peers:
    """What is believed about callers. Forwarding headers count only behind a trusted proxy."""

    origins: frozenset[str]
    proxies: tuple[IPv4Network | IPv6Network, ...]
    local_pages: bool
    """Whether pages served from this machine may connect, whatever their port."""

    @classmethod
    def of(cls, settings: Settings) -> Peers:
        """The rules that the settings state."""
        return cls(
            origins=frozenset(origin.rstrip("/").lower() for origin in settings.origins),
            proxies=tuple(ip_network(proxy, strict=False) for proxy in settings.trusted_proxies),
            local_pages=settings.env == "development",
        )

    def allows(self, origin: str) -> bool:
        """Whether a browser page of this origin may connect."""
        if origin.lower() in self.origins:
            return True
        return self.local_pages and _host(origin) in LOCAL_HOSTS

    def remote(self, request: web.BaseRequest) -> str:
        """Address of the caller: the last one in X-Forwarded-For that no trusted proxy wrote for another proxy."""
        remote = _parsed(request.remote or "")
        if remote is None:
            return request.remote or ""
        hops = [hop for value in request.headers.getall("X-Forwarded-For", ()) for hop in value.split(",")]
        return str(self._nearest_untrusted(remote, hops))

    def facts(self, request: web.BaseRequest) -> RequestFacts:
        """What the audit log keeps of a request."""
        return RequestFacts(self.remote(request), request.headers.get("User-Agent", "")[:AGENT_CHARS])

    def _nearest_untrusted(self, remote: _Address, hops: Sequence[str]) -> _Address:
        for hop in reversed(hops):
            if not self._is_proxy(remote):
                break
            address = _parsed(hop.strip())
            if address is None:
                break
            remote = address
        return remote

    def _is_proxy(self, address: _Address) -> bool:
        return any(address.version == network.version and address in network for network in self.proxies)


def _parsed(text: str) -> _Address | None:
    try:
        address = ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _host(origin: str) -> str | None:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.hostname if parts.scheme in {"http", "https"} else None
