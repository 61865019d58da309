from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from config.embedded.children import ROOT, Launch, kill, spawn
from config.settings import variable
from handlers import images
from handlers.images import Sent
from handlers.rules.pictures import file_name
from jobs import images as jobs
from jobs.decoder import DAMAGED
from jobs.images import DecoderDied, decode
from jobs.job import Tools
from store import categories, log, objects, outbox, sessions
from store import images as rows
from store.objects import ObjectsAway
from store.outbox import Claim
from store.postgres import Pool
from tests.factories import TIME, make_address
from tests.jobs.pictures import Case, bombs, sample, saved, scan_bomb
from tests.store.bucket import bucket
from tests.waiting import until

FOOD = "00000000-0000-4000-8000-000000000001"
ME, YOU = make_address("me"), make_address("you")
PNG = saved(sample(), "PNG")
OTHER = saved(sample(50, 50, "L"), "PNG")
WORKER_MB = 300


async def register(pool: Pool, *users: str) -> None:
    async with pool.acquire() as conn, conn.transaction():
        await log.lock(conn, users)
        for user in users:
            await sessions.register(conn, user, chain_ids=[], at=TIME)


@pytest.fixture(autouse=True)
async def people(pool: Pool) -> None:
    await register(pool, ME, YOU)


async def send(tools: Tools, raw: bytes, user: str = ME) -> Sent:
    """Take a picture in, whatever it is, as `images.take` does with one that is let through."""
    store = objects.open_objects(tools.deps.settings)
    sent = Sent(user, FOOD, f"uploads/{os.urandom(16).hex()}")
    await store.put(sent.upload, raw, media="x/y", public=False)
    await store.close()
    async with tools.deps.pool.acquire() as conn, conn.transaction():
        await rows.ask(conn, user, FOOD, sent.upload, at=TIME)
        await outbox.request(conn, "slow", images.JOB, sent.args)
    return sent


async def claims(tools: Tools, job: str) -> list[Claim]:
    found = [await outbox.begin(tools.deps.pool, due.id) for due in await due_jobs(tools, job)]
    return [claim for claim in found if claim is not None]


async def due_jobs(tools: Tools, job: str) -> Sequence[outbox.Due]:
    due = await outbox.due(tools.deps.pool, "slow", older_than_s=0, limit=100)
    return [each for each in due if each.job == job]


async def work(tools: Tools) -> None:
    """Run every job that is asked for, and those that they ask for, until none is left."""
    kinds = {job.name: job for job in (jobs.CATEGORY_IMAGE, jobs.FORGET_UPLOAD, jobs.FORGET_PICTURE)}
    while await outbox.depth(tools.deps.pool):
        for name, job in kinds.items():
            for claim in await claims(tools, name):
                await job.run(tools, claim)


async def image(tools: Tools, user: str = ME) -> rows.ImageRow:
    found = await rows.one(tools.deps.pool, user, FOOD)
    assert found is not None
    return found


async def icon(tools: Tools, user: str = ME) -> str | None:
    row = await categories.one(tools.deps.pool, user, FOOD)
    assert row is not None
    return row.custom_icon_url


async def events(tools: Tools, user: str = ME) -> list[dict[str, Any]]:
    entries = await log.after(tools.deps.pool, user, 0, limit=100, max_bytes=1 << 20)
    assert {entry.event for entry in entries} <= {"category_updated"}
    return [orjson.loads(entry.payload) for entry in entries]


def stored(tools: Tools, folder: str) -> list[str]:
    place = tools.deps.settings.data_dir / objects.FOLDER / folder
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


def squares(*pictures: str | None) -> list[str]:
    return sorted(file_name(picture, side) for picture in set(pictures) if picture for side in (64, 256))


async def test_a_picture_becomes_the_icon_and_every_device_is_told(tools: Tools) -> None:
    await send(tools, PNG)
    await work(tools)
    row = await image(tools)
    assert (row.status, row.reason, row.tries) == ("done", None, 1)
    assert await icon(tools) == f"/media/{row.picture}-256.webp"
    [event] = await events(tools)
    assert event["category"]["customIconUrl"] == await icon(tools)
    assert stored(tools, "media") == squares(row.picture)
    assert stored(tools, "uploads") == []


async def test_a_job_that_runs_twice_tells_once(tools: Tools) -> None:
    await send(tools, PNG)
    [claim] = await claims(tools, images.JOB)
    assert await jobs.run(tools, claim)
    before = await events(tools)
    assert not await jobs.run(tools, claim)  # its row is gone: nothing was left to end
    await work(tools)
    assert await events(tools) == before
    assert stored(tools, "media") == squares((await image(tools)).picture)


async def test_a_refused_picture_says_why_and_leaves_the_icon(tools: Tools) -> None:
    await send(tools, PNG)
    await work(tools)
    shown = await icon(tools)
    await send(tools, PNG[:60])
    await work(tools)
    row = await image(tools)
    assert (row.status, row.reason, row.picture) == ("refused", DAMAGED, (shown or "")[7:71])
    assert (await icon(tools), len(await events(tools))) == (shown, 1)
    assert (stored(tools, "media"), stored(tools, "uploads")) == (squares(row.picture), [])


async def test_the_last_picture_sent_is_shown_and_the_one_before_is_gone(tools: Tools) -> None:
    await send(tools, PNG)
    await work(tools)
    await send(tools, PNG)
    await send(tools, OTHER)
    await work(tools)
    row = await image(tools)
    assert (row.status, row.tries) == ("done", 1)
    assert await icon(tools) == f"/media/{row.picture}-256.webp"
    assert len(await events(tools)) == 2
    assert (stored(tools, "media"), stored(tools, "uploads")) == (squares(row.picture), [])


async def test_one_sent_while_another_is_decoded_wins(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    await send(tools, PNG)
    [claim] = await claims(tools, images.JOB)

    async def slow(raw: bytes) -> Any:
        await send(tools, OTHER)
        return await decode(raw)

    monkeypatch.setattr(jobs, "decode", slow)
    assert await jobs.run(tools, claim)
    assert (await events(tools), await icon(tools)) == ([], None)
    monkeypatch.undo()
    await work(tools)
    row = await image(tools)
    assert (row.status, stored(tools, "media")) == ("done", squares(row.picture))


async def test_a_picture_removed_while_it_is_decoded_is_not_shown(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(tools, PNG)
    [claim] = await claims(tools, images.JOB)

    async def slow(raw: bytes) -> Any:
        await images.remove(tools.deps, ME, FOOD)
        return await decode(raw)

    monkeypatch.setattr(jobs, "decode", slow)
    assert await jobs.run(tools, claim)
    await work(tools)
    assert (await icon(tools), await events(tools)) == (None, [])
    assert (stored(tools, "media"), stored(tools, "uploads")) == ([], [])


async def test_the_same_picture_of_two_people_goes_with_the_last(tools: Tools) -> None:
    await send(tools, PNG, ME)
    await send(tools, PNG, YOU)
    await work(tools)
    assert await icon(tools, ME) == await icon(tools, YOU) != None  # noqa: E711 - compares three values
    picture = (await image(tools, YOU)).picture
    for user, left in ((ME, squares(picture)), (YOU, [])):
        await images.remove(tools.deps, user, FOOD)
        await work(tools)
        assert stored(tools, "media") == left
    assert [event["category"]["customIconUrl"] for event in await events(tools)][1:] == ["/icons/food.svg"]


async def test_a_picture_is_not_deleted_while_another_begins_to_show_it(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(tools, PNG, ME)
    await work(tools)
    await images.remove(tools.deps, ME, FOOD)
    [forget] = await claims(tools, images.FORGET_PICTURE)
    await send(tools, PNG, YOU)
    [show] = await claims(tools, images.JOB)
    put = objects.Folder.put
    forgetting: list[asyncio.Future[bool]] = []

    async def meanwhile(self: objects.Folder, name: str, body: bytes, **facts: Any) -> None:
        await put(self, name, body, **facts)
        if name.endswith("-256.webp"):
            forgetting.append(asyncio.ensure_future(jobs.FORGET_PICTURE.run(tools, forget)))
            await until(lambda: forgetting[0].done() or waits_for_a_lock(tools.deps.pool))

    monkeypatch.setattr(objects.Folder, "put", meanwhile)
    assert await jobs.run(tools, show)
    assert await forgetting[0]
    assert stored(tools, "media") == squares((await image(tools, YOU)).picture)


async def waits_for_a_lock(pool: Pool) -> bool:
    return bool(await pool.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"))


async def test_an_upload_that_is_lost_is_said_to_be(tools: Tools) -> None:
    sent = await send(tools, PNG)
    await objects.open_objects(tools.deps.settings).delete(sent.upload)
    await work(tools)
    assert ((await image(tools)).status, (await image(tools)).reason) == ("refused", jobs.LOST)


async def test_storage_that_is_away_delays_a_picture(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    await send(tools, PNG)
    [claim] = await claims(tools, images.JOB)

    async def away(*_: object, **__: object) -> None:
        raise ObjectsAway("gone")

    monkeypatch.setattr(objects.Folder, "put", away)
    with pytest.raises(ObjectsAway):
        await jobs.run(tools, claim)
    assert ((await image(tools)).status, await events(tools)) == ("processing", [])
    monkeypatch.undo()
    await work(tools)
    assert ((await image(tools)).status, len(await events(tools))) == ("done", 1)


async def test_pictures_go_into_a_bucket_and_uploads_out_of_it(tools: Tools, tmp_path: Path) -> None:
    with bucket(tmp_path / "s3.log") as facts:
        update = {**facts, "s3_secret_key": SecretStr(facts["s3_secret_key"])}
        settings = tools.deps.settings.model_copy(update=update)
        tools = replace(tools, deps=replace(tools.deps, settings=settings))
        sent = await send(tools, PNG)
        await work(tools)
        store = objects.open_objects(settings)
        name = file_name((await image(tools)).picture or "", 64)
        assert (await store.get(f"media/{name}") or b"")[8:12] == b"WEBP"
        assert await store.get(sent.upload) is None
        await images.remove(tools.deps, ME, FOOD)
        await work(tools)
        assert await store.get(f"media/{name}") is None
        await store.close()
    assert stored(tools, "media") == []


def decoder_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Put a script in the place of the decoder."""
    script = tmp_path / "decoder"
    script.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(jobs, "sys", SimpleNamespace(executable=str(script)))


def gone(pid_file: Path) -> bool:
    return not Path(f"/proc/{pid_file.read_text().strip()}").exists()


@pytest.mark.parametrize(
    "lines",
    [
        ["kill -9 $$"],
        ["kill -11 $$"],
        ["cat > /dev/null", "exit 1"],
        ["cat > /dev/null", "echo '{}'"],
        ["exec /usr/bin/yes"],
        ["exec /bin/sleep 60"],
        ["exec 1>&-", "exec /bin/sleep 60"],
    ],
)
async def test_a_decoder_that_dies_hangs_or_raves_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    monkeypatch.setattr(jobs, "DECODE_S", 0.5)
    decoder_that(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid", *lines)
    with pytest.raises(DecoderDied):
        await decode(PNG * 500)
    assert gone(tmp_path / "pid")


async def test_a_picture_that_kills_its_decoder_is_tried_again_and_then_refused(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder_that(tmp_path, monkeypatch, "kill -9 $$")
    await send(tools, PNG)
    [claim] = await claims(tools, images.JOB)
    for _ in range(jobs.MAX_TRIES - 1):
        with pytest.raises(DecoderDied):
            await jobs.run(tools, claim)
    assert await jobs.run(tools, claim)
    assert ((await image(tools)).status, (await image(tools)).reason) == ("refused", DAMAGED)


async def test_a_picture_that_takes_the_worker_down_each_time_is_not_decoded_again(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = await send(tools, PNG)
    for _ in range(jobs.MAX_TRIES):
        assert await images.start(tools.deps, sent)
    monkeypatch.setattr(jobs, "decode", None)
    await work(tools)
    assert (await image(tools)).status == "refused"


async def test_one_picture_is_decoded_at_a_time(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in (ME, YOU):
        await send(tools, PNG, user)
    inside: list[int] = [0, 0]

    async def counted(raw: bytes) -> Any:
        inside[0] += 1
        inside[1] = max(inside)
        try:
            return await decode(raw)
        finally:
            inside[0] -= 1

    monkeypatch.setattr(jobs, "decode", counted)
    await asyncio.gather(*(jobs.run(tools, claim) for claim in await claims(tools, images.JOB)))
    assert inside == [0, 1]


async def test_old_uploads_that_nobody_waits_for_are_swept(tools: Tools) -> None:
    waiting = await send(tools, PNG)
    store = objects.open_objects(tools.deps.settings)
    await store.put("uploads/" + "a" * 32, b"x", media="x/y", public=False)
    assert await jobs.sweep_uploads(tools) == 0
    for name in stored(tools, "uploads"):
        path = tools.deps.settings.data_dir / objects.FOLDER / "uploads" / name
        os.utime(path, (1, 1))
    assert await jobs.sweep_uploads(tools) == 1
    assert stored(tools, "uploads") == [waiting.upload.removeprefix("uploads/")]


@contextmanager
def worker(tools: Tools, said: Path) -> Iterator[subprocess.Popen[bytes]]:
    settings = tools.deps.settings
    given = {"database_url", "redis_url", "clickhouse_url", "data_dir"}
    env = {variable(name): str(getattr(settings, name)) for name in given} | {"PATH": os.environ["PATH"]}
    env |= {variable("chains_file"): str(ROOT / "config" / "chains.toml")}
    env |= {variable("secret_key"): settings.secret_key.get_secret_value(), variable("log_level"): "debug"}
    with said.open("wb") as out:
        child = spawn(Launch([sys.executable, "-m", "jobs", "slow"], cwd=ROOT, env=env), output=out)
        try:
            yield child
        finally:
            kill(child)


def peak_mb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024


async def test_bombs_do_not_make_a_worker_large_and_none_takes_it_down(tools: Tools, tmp_path: Path) -> None:
    cases: list[Case] = [*bombs(), Case("jpeg scan bomb", scan_bomb(), "refused")]
    people = [make_address(case.name) for case in cases]
    await register(tools.deps.pool, *people)
    for case, user in zip(cases, people, strict=True):
        sent = await send(tools, case.raw, user)
        if case.name == "jpeg scan bomb":  # it takes its time: one try of it is enough here
            for _ in range(jobs.MAX_TRIES - 1):
                await images.start(tools.deps, sent)
    said = tmp_path / "worker.log"
    with worker(tools, said) as child:
        await until(lambda: settled(tools), 90, what="every picture to have its outcome")
        worker_mb = peak_mb(child.pid)
        child.send_signal(signal.SIGTERM)
        await asyncio.to_thread(child.wait)
    for case, user in zip(cases, people, strict=True):
        status = (await image(tools, user)).status
        assert status in {"cleaned": {"done"}, "refused": {"refused"}, "survived": {"done", "refused"}}[case.fate], case
    judged = [json.loads(line) for line in said.read_text().splitlines() if '"picture_judged"' in line]
    decoder_mb = max(each["peak_bytes"] for each in judged) // 2**20
    assert len(judged) == len(cases)
    assert 100 < decoder_mb < 200
    assert worker_mb + decoder_mb < WORKER_MB, (worker_mb, decoder_mb)
    assert stored(tools, "uploads") == []


async def settled(tools: Tools) -> bool:
    return await outbox.depth(tools.deps.pool) == 0
