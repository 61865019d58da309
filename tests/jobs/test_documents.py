"""The job that writes documents: cut anywhere it goes on, and what it leaves is whole or nothing."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers import documents, extracts
from handlers.deps import Deps
from handlers.documents import Busy, Piece, Wanted, Work
from handlers.rules.columns import MEDIA
from jobs import documents as jobs
from jobs.documents import WRITE_EXPORT
from jobs.job import Tools
from store import objects as storage
from store import outbox
from store.clickhouse import Analytics
from store.history import Filters
from store.objects import PART_BYTES, Objects, open_objects
from store.outbox import Claim
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.factories import make_address
from tests.realtime.rows import open_log
from tests.realtime.test_rest_exports import KEY, many
from tests.realtime.wiring import CHAIN, FakeClock, wire
from tests.store.bucket import bucket

ME = make_address("me")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with bucket(tmp_path_factory.mktemp("s3") / "log") as facts:
        yield facts


@pytest.fixture(params=["folder", "bucket"])
def deps(request: pytest.FixtureRequest, pool: Pool, make_settings: MakeSettings, clock: FakeClock) -> Deps:
    facts = request.getfixturevalue("server") if request.param == "bucket" else {}
    return wire(pool, make_settings(seal_keys=[KEY], **facts), clock=clock)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def tools(deps: Deps) -> AsyncIterator[Tools]:
    analytics = Analytics(deps.settings.clickhouse_url)
    yield Tools(deps, analytics)
    await analytics.close()


@pytest.fixture
async def objects(deps: Deps) -> AsyncIterator[Objects]:
    opened = open_objects(deps.settings)
    yield opened
    await opened.close()


async def asked(deps: Deps, objects: Objects, **changes: Any) -> str:
    filters = extracts.params_of(Filters(chain_ids=[CHAIN.id]))
    facts = {"kind": "transactions", "format": "ndjson", "media": MEDIA["ndjson"], "called": "x", "params": filters}
    made = await documents.ask(deps, objects, ME, Wanted(**{**facts, **changes}))
    return str(made["id"])


async def claimed(pool: Pool) -> Claim | None:
    row = await pool.fetchrow("SELECT id FROM outbox WHERE job = $1", WRITE_EXPORT.name)
    return None if row is None else await outbox.begin(pool, row["id"])


async def state(pool: Pool) -> tuple[str, int, int, int]:
    row = await pool.fetchrow("SELECT status, cardinality(parts) AS parts, rows, bytes FROM exports")
    assert row is not None
    return row["status"], row["parts"], row["rows"], row["bytes"]


async def stored(pool: Pool, objects: Objects) -> bytes:
    name = await pool.fetchval("SELECT object FROM exports")
    return b"".join([piece async for piece in objects.pieces(name)])


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Parts of 100 KB in the folder; a bucket insists on five megabytes."""
    if "folder" in request.node.name:
        monkeypatch.setattr(jobs, "PART_BYTES", 100_000)


@pytest.mark.usefixtures("small_parts")
async def test_cut_between_any_two_steps_it_goes_on_without_loss_or_double(
    pool: Pool, deps: Deps, tools: Tools, objects: Objects, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_log(pool, ME)
    await many(pool, ME, 2_000 if objects.__class__.__name__ == "Folder" else 14_000)
    await asked(deps, objects)
    plan = Filters(chain_ids=[CHAIN.id])
    whole = b"".join([chunk async for chunk in extracts.stream(deps, ME, plan, format_="ndjson")])
    steps = [(type(objects), "put_part"), (documents.documents, "keep_part"), (type(objects), "finish")]  # type: ignore[attr-defined]  # the store's module, as the feature names it
    for owner, name in steps:
        for after in (False, True):
            with monkeypatch.context() as patch:
                cut(patch, owner, name, after=after)
                claim = await claimed(pool)
                assert claim is not None
                with pytest.raises(asyncio.CancelledError):
                    await WRITE_EXPORT.run(tools, claim)
            with pytest.raises(Busy):
                await WRITE_EXPORT.run(tools, claim)
            clock.pass_(documents.LEASE.total_seconds())
    claim = await claimed(pool)
    assert claim is not None
    assert await WRITE_EXPORT.run(tools, claim)
    assert await claimed(pool) is None
    status, parts, rows, size = await state(pool)
    assert (status, rows, size) == ("done", len(whole.splitlines()), len(whole))
    assert parts > 2
    assert await stored(pool, objects) == whole


def cut(patch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool) -> None:
    """Let the process die before or after something; it says nothing to anyone after that."""
    real = getattr(owner, name)

    async def dying(*words: Any, **named: Any) -> Any:
        if after:
            await real(*words, **named)
        raise asyncio.CancelledError

    async def nothing(*_: Any) -> None:
        return

    patch.setattr(owner, name, dying)
    patch.setattr(documents, "leave", nothing)


async def test_a_long_document_is_written_in_several_runs(
    pool: Pool, deps: Deps, tools: Tools, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "SLICE_S", -1.0)
    await open_log(pool, ME)
    id_ = await asked(deps, objects)
    claim = await claimed(pool)
    assert claim is not None
    run = await documents.take(deps, claim)
    assert run is not None
    begun = await documents.begin(deps, objects, run, total=3)
    assert begun is not None

    async def pieces(first: int) -> AsyncIterator[Piece]:
        for n in range(first, 4):
            yield Piece(bytes([n]) * PART_BYTES, 1, None if n == 3 else n)

    for n in (1, 2):
        assert not await documents.write(deps, objects, claim, run=begun, work=Work(pieces(n)))
        await documents.leave(deps, begun)
        begun = await documents.take(deps, claim)
        assert begun is not None
        assert (begun.row.place, begun.row.rows, len(begun.row.parts)) == (n, n, n)
        assert (await documents.read(deps, objects, ME, id_))["progress"] == ("0.333333", "0.666667")[n - 1]
    assert await documents.write(deps, objects, claim, run=begun, work=Work(pieces(3)))
    assert await stored(pool, objects) == b"".join(bytes([n]) * PART_BYTES for n in (1, 2, 3))


@pytest.mark.usefixtures("small_parts")
async def test_two_workers_leave_one_document(pool: Pool, deps: Deps, tools: Tools, objects: Objects) -> None:
    await open_log(pool, ME)
    await many(pool, ME, 2_000)
    await asked(deps, objects)
    claim = await claimed(pool)
    assert claim is not None
    await asyncio.gather(*(WRITE_EXPORT.run(tools, claim) for _ in range(3)), return_exceptions=True)
    while (claim := await claimed(pool)) is not None:
        await WRITE_EXPORT.run(tools, claim)
    status, _, rows, size = await state(pool)
    body = await stored(pool, objects)
    assert (status, rows, size) == ("done", 2_000, len(body))
    assert len(set(body.splitlines())) == 2_000


async def test_what_fails_again_and_again_is_given_up_with_a_reason(
    pool: Pool, deps: Deps, tools: Tools, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_log(pool, ME)
    id_ = await asked(deps, objects)

    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(extracts, "part", broken)
    for _ in range(documents.TRIES):
        claim = await claimed(pool)
        assert claim is not None
        with pytest.raises(RuntimeError):
            await WRITE_EXPORT.run(tools, claim)
    claim = await claimed(pool)
    assert claim is not None
    assert await WRITE_EXPORT.run(tools, claim)
    told = await documents.read(deps, objects, ME, id_)
    assert (told["status"], told["url"]) == ("failed", None)
    assert "again" in str(told["reason"])


async def test_an_empty_document_is_one(pool: Pool, deps: Deps, tools: Tools, objects: Objects) -> None:
    await open_log(pool, ME)
    await asked(deps, objects)
    claim = await claimed(pool)
    assert claim is not None
    assert await WRITE_EXPORT.run(tools, claim)
    assert await stored(pool, objects) == b""
    assert (await state(pool))[0] == "done"


@pytest.mark.parametrize("deps", ["folder"], indirect=True)
async def test_memory_holds_a_part_and_not_the_document(
    pool: Pool, deps: Deps, tools: Tools, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PART_BYTES", 500_000)
    await open_log(pool, ME)
    await many(pool, ME, 12_000)
    await asked(deps, objects)
    claim = await claimed(pool)
    assert claim is not None
    tracemalloc.start()
    try:
        assert await WRITE_EXPORT.run(tools, claim)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = (await state(pool))[3]
    assert size > 10_000_000
    assert most < 6_000_000
    assert isinstance(objects, storage.Folder)
    assert len(await asyncio.to_thread(lambda: list(Path(deps.settings.data_dir).rglob("exports/*")))) == 1
