"""The unsubscribe link of a letter: mail programs POST to it (RFC 8058), people see a page with one button."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from handlers import mails
from handlers.errors import NotFound
from handlers.rules.unsubscribe import PATH
from realtime.rest.api import Path, endpoint
from realtime.rest.call import Answer, Call
from store.mails import DIGEST

HTML = "text/html; charset=utf-8"
Token = Annotated[str, Path("Token of the link."), StringConstraints(max_length=64)]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex"><title>Expendi e-mail</title></head>
<body><h1>Expendi e-mail</h1>{body}</body></html>
"""
_ASK = '<p>Stop {what}?</p><form method="post"><button type="submit">Unsubscribe</button></form>'
_DONE = "<p>Done: you will not get {what} any more. You can turn it on again in the app.</p>"


@endpoint(
    "GET",
    PATH + "{token}",
    tag="notifications",
    media=HTML,
    access="public",
    problems=(NotFound,),
)
async def unsubscribe_page(call: Call, *, token: Token) -> Answer:
    """Show a page that asks whether to unsubscribe: programs that look at links must not end anything."""
    return _page(_ASK, await mails.kind_of(call.deps, token))


@endpoint(
    "POST",
    PATH + "{token}",
    tag="notifications",
    media=HTML,
    access="public",
    writes=True,
    problems=(NotFound,),
)
async def unsubscribe(call: Call, *, token: Token) -> Answer:
    """End the kind of e-mail that a link came with, without signing in (RFC 8058, one click).

    The body is not looked at. The second time is a no-op.
    """
    return _page(_DONE, await mails.unsubscribe(call.deps, token))


def _page(text: str, kind: str) -> Answer:
    what = "the digest" if kind == DIGEST else f"e-mail about {kind.replace('_', ' ')}"
    return Answer(body=_PAGE.format(body=text.format(what=what)).encode())


ROUTES = (unsubscribe_page, unsubscribe)
