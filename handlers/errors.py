"""Refusals that callers are told: one class, one body (RFC 9457) for REST, acknowledgements and connect errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

TYPE_PREFIX = "urn:expendi:problem:"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One bad part of the input: JSON pointer and what is wrong with it."""

    pointer: str
    message: str


class Problem(Exception):
    """A refusal with its remedy. Subclasses fix code, status and title; `detail` says what to do."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong on our side"

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = (), retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """The problem as the object that goes on the wire."""
        return {
            "type": TYPE_PREFIX + self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "requestId": request_id,
            "errors": [{"pointer": e.pointer, "message": e.message} for e in self.errors],
        }


class Internal(Problem):
    """A fault of ours; the detail names no internals."""


class Invalid(Problem):
    """The input does not have the form that was asked for."""

    code, status, title = "invalid_request", 400, "The request is not valid"


class OutdatedClient(Problem):
    """A client that speaks a protocol which is not served any more: it must be updated."""

    code, status, title = "unsupported_protocol", 400, "The client is too old"


class Unauthenticated(Problem):
    """No token, a bad one or an expired one: sign in or refresh."""

    code, status, title = "unauthenticated", 401, "Sign-in is needed"


class TokenExpired(Unauthenticated):
    """The access token is past its time: refresh it."""

    code = "token_expired"


class Forbidden(Problem):
    """The caller is known and may not do this."""

    code, status, title = "forbidden", 403, "Not allowed"


class OriginRefused(Forbidden):
    """A browser page of an origin that is not on the list."""

    code = "origin_not_allowed"


class NotFound(Problem):
    """Nothing of the caller's own has this id; another user's things look the same."""

    code, status, title = "not_found", 404, "Not found"


class MethodNotAllowed(Problem):
    """The path exists, the method on it does not."""

    code, status, title = "method_not_allowed", 405, "Method not allowed"


class Conflict(Problem):
    """The same thing is being done already, or was changed meanwhile."""

    code, status, title = "conflict", 409, "Conflict"


class LogTruncated(Problem):
    """The log does not reach back that far, or has another epoch: fetch a snapshot."""

    code, status, title = "log_truncated", 410, "The log no longer reaches back"


class PreconditionFailed(Problem):
    """The resource changed since the caller read it."""

    code, status, title = "precondition_failed", 412, "Changed meanwhile"


class TooLarge(Problem):
    """The body is larger than this route takes."""

    code, status, title = "too_large", 413, "Too large"


class RateLimited(Problem):
    """Too many calls: wait for `retry_after_s`."""

    code, status, title = "rate_limited", 429, "Too many requests"


class Unavailable(Problem):
    """An engine or node that this needs does not answer; the same call may work later."""

    code, status, title = "unavailable", 503, "Temporarily unavailable"
