"""Pictures that users sent: decoded in a child that may die of them, stored as squares, deleted when unused."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from handlers import images
from handlers.images import Sent
from handlers.rules import pictures
from jobs.decoder import DAMAGED, Verdict, read_verdict
from jobs.job import Job, Tools
from store.objects import Objects, open_objects
from store.outbox import Claim

log = structlog.get_logger(__name__)

DECODE_S = 20.0
"""Time a child may take (s); it has 4 on a processor, of which others may leave it a quarter."""
END_S = 2.0
"""Time a child may take to be gone after it was killed (s); what it may have started can hold its pipe open."""
MAX_TRIES = 3
"""Tries after which a picture whose child died or hung counts as damaged: the machine may be to blame once."""
VERDICT_BYTES = 2 * pictures.MAX_RESULT_BYTES + 4096
LOST = "The picture was lost on its way; send it again."


class DecoderDied(Exception):
    """The child ended without a verdict, or wrote what an honest one does not."""


async def decode(raw: bytes) -> Verdict:
    """Let a child of its own turn a picture into squares; raises DecoderDied. Whatever happens, the child is gone."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",  # nothing of the environment or the working directory is imported
        "-m",
        "jobs.decoder",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd="/",
        env={},
        limit=VERDICT_BYTES,
    )
    try:
        async with asyncio.timeout(DECODE_S):
            text = await _conversation(child, raw)
            code = await child.wait()
    except TimeoutError:
        raise DecoderDied(f"no verdict within {DECODE_S:g} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await _ended(child)
    verdict = read_verdict(text) if code == 0 and len(text) <= VERDICT_BYTES else None
    if verdict is None:
        raise DecoderDied(f"ended with {code}")
    return verdict


async def _ended(child: asyncio.subprocess.Process) -> None:
    """Read to the end of what it wrote, and keep nothing: a pipe that is not read out stays open."""
    assert child.stdout is not None
    with suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            while await child.stdout.read(VERDICT_BYTES):
                pass
            await child.wait()


async def _conversation(child: asyncio.subprocess.Process, raw: bytes) -> bytes:
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(ConnectionError):  # it died before it had read everything
        child.stdin.write(raw)
        await child.stdin.drain()
    child.stdin.close()
    text = b""
    while len(text) <= VERDICT_BYTES and (part := await child.stdout.read(VERDICT_BYTES)):
        text += part
    return text


@asynccontextmanager
async def storage(tools: Tools) -> AsyncIterator[Objects]:
    """The storage for one job: pictures come rarely, and a client that is not open costs nothing."""
    objects = open_objects(tools.deps.settings)
    try:
        yield objects
    finally:
        await objects.close()


async def run(tools: Tools, claim: Claim) -> bool:
    """Process a picture that was sent."""
    sent = Sent.of(claim.args)
    async with storage(tools) as objects:
        async with tools.decoding:
            tries = await images.start(tools.deps, sent)
            if tries is None:
                return await images.refuse(tools.deps, claim, None)
            raw = await objects.get(sent.upload)
            if raw is None:
                return await images.refuse(tools.deps, claim, LOST)
            verdict = await _judged(raw, tries)
        log.info("picture_judged", peak_bytes=verdict.peak_bytes, reason=verdict.reason, tries=tries)
        if verdict.reason is not None:
            return await images.refuse(tools.deps, claim, verdict.reason)
        return await images.show(tools.deps, objects, claim, verdict.squares)


async def _judged(raw: bytes, tries: int) -> Verdict:
    if tries > MAX_TRIES:  # the whole process died of it, each time
        return Verdict({}, DAMAGED, 0)
    try:
        return await decode(raw)
    except DecoderDied as error:
        if tries < MAX_TRIES:
            raise
        log.warning("picture_killed_its_decoder", reason=str(error), tries=tries)
        return Verdict({}, DAMAGED, 0)


async def _forget_upload(tools: Tools, claim: Claim) -> bool:
    async with storage(tools) as objects:
        return await images.forget_upload(tools.deps, objects, claim)


async def _forget_picture(tools: Tools, claim: Claim) -> bool:
    async with storage(tools) as objects:
        return await images.forget_picture(tools.deps, objects, claim)


async def sweep_uploads(tools: Tools) -> int:
    """Delete what was sent, and never asked for again."""
    async with storage(tools) as objects:
        return await images.sweep(tools.deps, objects)


CATEGORY_IMAGE = Job(images.JOB, "slow", run, timeout_s=30)
FORGET_UPLOAD = Job(images.FORGET_UPLOAD, "slow", _forget_upload, timeout_s=15)
FORGET_PICTURE = Job(images.FORGET_PICTURE, "slow", _forget_picture, timeout_s=15)
