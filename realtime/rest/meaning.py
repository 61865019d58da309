"""What a query means is asked of a worker: a web process loads no model and waits without blocking."""

from __future__ import annotations

from handlers.errors import RateLimited, Unavailable
from handlers.history import Asked
from realtime.rest.call import Call
from store.questions import NoAnswer


async def meaning_of(call: Call, q: str) -> Asked:
    """The model and the turned vectors of a query; raises Unavailable, or RateLimited when the day's cap is reached."""
    try:
        told = await call.web.questions.ask({"ask": "meaning", "user": call.me.user, "text": q})
    except NoAnswer as error:
        raise Unavailable(f"Search by meaning does not answer: {error}.", retry_after_s=5) from error
    match told.get("error"):
        case None:
            return Asked(told["model"], told["vectors"])
        case "over_cap":
            raise RateLimited("Your models have cost what they may today; search by words.", retry_after_s=3600)
    raise Unavailable("The model does not answer; try again, or search by words.", retry_after_s=5)
