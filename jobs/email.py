"""E-mail: letters that were asked for are written and handed over, each once; digests, and notices where wanted.

`mails` is its own outbox: a row is claimed before the server is called and settled after. What became of a letter
whose connection broke is not known: it goes again under the same Message-ID, which mail programs show once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from config import metrics
from handlers.rules.digest import Period
from handlers.rules.push_policy import retry_s
from handlers.rules.unsubscribe import link
from jobs import digests
from jobs.job import Tools
from jobs.letters import Rendered
from jobs.outbound.mail import Letter, MailAway, MailRefused
from store import mails
from store.mails import DIGEST, Addressee, MailRow
from store.sealed import KeyRing, SealError

log = structlog.get_logger(__name__)

AT_ONCE = 5
"""Letters under way at once in one process."""
LEASE_S = 120.0
"""How long a claim holds (s): several times what a letter may take."""
TIMEOUT_S = 20.0
"""Limit of one run (s); what it leaves under way goes again when its lease ends."""
BUDGET = timedelta(seconds=4)
"""Time a run may begin letters in: the last one may take most of the rest."""
NOTICE_AFTER = timedelta(minutes=2)
"""Age of an inbox entry at which it becomes a letter: until then it may be read, or taken back by a reorg."""
NOTICE_UNTIL = timedelta(hours=2)
"""Age beyond which it is not sent any more: a stop of ours must not fill a mailbox."""
EXPIRY = timedelta(days=1)
"""Age at which a letter that can't be handed over is given up."""
KEPT = timedelta(days=400)
"""How long a letter is remembered: its unsubscribe link works as long."""

COLOURS = {"info": "#1F2933", "warning": "#B44D12", "critical": "#BA2525"}
WHY = {DIGEST: "You get this because your digest is on.", "": "You get this because you asked for e-mail of this kind."}


class _NotWanted(Exception):
    """There is nothing to send any more; the text says why."""


async def record_notices(tools: Tools) -> int:
    """Ask for letters about what is in the inbox, where its user wants e-mail of that kind."""
    if tools.mail is None:
        return 0
    now = tools.deps.now()
    after, until = now - NOTICE_UNTIL, now - NOTICE_AFTER
    return await mails.record_notices(tools.deps.pool, after=after, until=until, at=now, limit=1000)


async def run(tools: Tools) -> int:
    """Send what is due, some letters at once; one run at a time in a process, however slow the server."""
    if tools.mail is None or tools.mailing.locked():
        return 0
    async with tools.mailing:
        count, deadline = 0, tools.deps.now() + BUDGET
        while tools.deps.now() < deadline:
            rows = await mails.claim(tools.deps.pool, now=tools.deps.now(), lease_s=LEASE_S, limit=AT_ONCE)
            if not rows:
                break
            await asyncio.gather(*(_send(tools, row) for row in rows))
            count += len(rows)
        return count


async def prune(tools: Tools) -> int:
    """Forget letters of long ago."""
    return await mails.prune(tools.deps.pool, before=tools.deps.now() - KEPT, batch=2000)


async def _send(tools: Tools, row: MailRow) -> None:
    assert tools.mail is not None
    now, pool = tools.deps.now(), tools.deps.pool
    try:
        if now - row.created_at > EXPIRY:
            raise _NotWanted("expired")
        await tools.mail.send(await _written(tools, row, now))
    except (_NotWanted, MailRefused) as error:
        outcome = "dropped"
        await mails.settle(pool, row, "dropped", reason=str(error), not_before=now)
    except MailAway as error:
        outcome = "due"
        later = now + timedelta(seconds=retry_s(row.attempts, asked_s=None))
        await mails.settle(pool, row, "due", reason=str(error), not_before=later)
        log.warning("mail_not_handed_over", mail=str(row.id), reason=str(error))
    else:
        outcome = "sent"
        await mails.settle(pool, row, "sent", not_before=now)
    metrics.MAILS.labels(row.kind, outcome).inc()


async def _written(tools: Tools, row: MailRow, now: datetime) -> Letter:
    """The letter as it is right now; raises _NotWanted."""
    person = await mails.addressee(tools.deps.pool, row.user)
    if person is None or person.email is None:
        raise _NotWanted("no_address")
    try:
        to = KeyRing.of(tools.deps.settings).unseal(person.email, purpose="email", owner=row.user)
    except SealError as error:
        log.error("email_sealed", user=row.user, error=str(error))
        raise _NotWanted("sealed") from error
    unsubscribe = link(tools.deps.settings, row.id)
    facts = {"unsubscribe_url": unsubscribe, "why": WHY.get(row.kind, WHY[""])}
    rendered = await _rendered(tools, row, person, facts)
    return Letter(
        name=str(row.id),
        to=to,
        subject=rendered.subject,
        text=rendered.text,
        html=rendered.html,
        unsubscribe_url=unsubscribe,
        at=now,
    )


async def _rendered(tools: Tools, row: MailRow, person: Addressee, facts: Mapping[str, Any]) -> Rendered:
    if row.kind == DIGEST:
        period = _period(row.facts)
        if person.digest != period.cadence:
            raise _NotWanted("unwanted")
        digest = await digests.figures(tools, person, period)
        if digest.is_empty:
            raise _NotWanted("nothing_to_say")
        return tools.templates.render("digest", **digests.words(digest), **facts)
    words = await mails.notice(tools.deps.pool, row.user, UUID(row.facts["notification"]))
    if words is None:
        raise _NotWanted("unwanted")
    return tools.templates.render("notice", title=words.title, body=words.body, colour=COLOURS[words.severity], **facts)


def _period(facts: Mapping[str, Any]) -> Period:
    names = ("before", "since", "until")
    before, since, until = (datetime.fromisoformat(facts[name]).astimezone(UTC) for name in names)
    return Period(facts["cadence"], date.fromisoformat(facts["firstDay"]), before, since, until, due=until)
