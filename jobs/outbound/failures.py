"""The errors of both SDKs, which are the same by name, as the failures that the router knows."""

from __future__ import annotations

from typing import Any

from jobs.outbound.provider import ProviderFailed

TOO_MANY = 429
SERVER = 500


def failure_of(sdk: Any, error: Exception) -> ProviderFailed:
    """What an error of an SDK means; the text of the answer stays out of it, since it may repeat a memo."""
    kind = type(error).__name__
    if isinstance(error, TimeoutError | sdk.APITimeoutError):
        return ProviderFailed("timeout", kind, served=True)
    if isinstance(error, sdk.APIStatusError):
        return _of_status(error, f"{kind} {error.status_code}")
    if isinstance(error, sdk.APIConnectionError):
        # The connection may have been lost while the model was at work.
        return ProviderFailed("connection", kind, served=True)
    return ProviderFailed("malformed", kind, served=True)


def _of_status(error: Any, reason: str) -> ProviderFailed:
    if error.status_code == TOO_MANY:
        return ProviderFailed("busy", reason, served=False, retry_after_s=_retry_after_s(error))
    return ProviderFailed("server" if error.status_code >= SERVER else "refused", reason, served=False)


def _retry_after_s(error: Any) -> float | None:
    told = error.response.headers.get("retry-after", "")
    return float(told) if told.isascii() and told.isdigit() else None
