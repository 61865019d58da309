from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from config.embedded.children import free_port
from config.settings import Settings
from store.objects import IMMUTABLE, PART_BYTES, Bucket, Folder, Objects, ObjectsAway, open_objects
from tests.store.bucket import SIGNED, bucket

PICTURE = "media/" + "a" * 64 + "-64.webp"
UPLOAD = "uploads/" + "b" * 32
CHAINS = Path("chains.toml")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with bucket(tmp_path_factory.mktemp("s3") / "log") as facts:
        yield facts


def settings_of(tmp_path: Path, **facts: object) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path, **facts})


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(params=["folder", "bucket"])
async def objects(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Objects]:
    facts = request.getfixturevalue("server") if request.param == "bucket" else {}
    opened = open_objects(settings_of(tmp_path, **facts))
    assert isinstance(opened, Bucket if facts else Folder)
    yield opened
    await opened.close()


async def test_what_was_put_is_got_until_it_is_deleted(objects: Objects) -> None:
    body = bytes(range(256)) * 500
    await objects.put(PICTURE, b"first", media="image/webp", public=True)
    await objects.put(PICTURE, body, media="image/webp", public=True)
    assert await objects.get(PICTURE) == body
    for _ in range(2):
        await objects.delete(PICTURE)
        assert await objects.get(PICTURE) is None


async def test_many_at_once_share_one_connection(objects: Objects) -> None:
    names = [f"uploads/{n:032x}" for n in range(8)]
    await asyncio.gather(*(objects.put(name, name.encode(), media="x/y", public=False) for name in names))
    assert await asyncio.gather(*map(objects.get, names)) == [name.encode() for name in names]


async def test_what_is_old_is_found(objects: Objects) -> None:
    now = datetime.now(UTC)
    await objects.put(UPLOAD, b"x", media="x/y", public=False)
    assert UPLOAD in await objects.older("uploads", now + timedelta(minutes=1))
    assert await objects.older("uploads", now - timedelta(minutes=1)) == []
    assert await objects.older("nothing", now + timedelta(minutes=1)) == []


@pytest.mark.parametrize(
    "name", ["../secret", "media/../../x", "/etc/passwd", "media/", "media/.x", "a", "media/a/b", ""]
)
async def test_a_name_that_is_not_ours_is_never_used(objects: Objects, name: str, tmp_path: Path) -> None:
    for call in (objects.get(name), objects.delete(name), objects.put(name, b"x", media="x/y", public=False)):
        with pytest.raises(ValueError, match="no name of an object"):
            await call
    assert files_in(tmp_path) == []


async def test_a_bucket_tells_type_and_caching(server: dict[str, str], tmp_path: Path) -> None:
    objects = open_objects(settings_of(tmp_path, **server))
    await objects.put(PICTURE, b"x", media="image/webp", public=True)
    await objects.put(UPLOAD, b"x", media="application/octet-stream", public=False)
    await objects.close()
    async with aiohttp.ClientSession(headers={"Authorization": SIGNED}) as session:
        for name, kind, caching in (
            (PICTURE, "image/webp", IMMUTABLE),
            (UPLOAD, "application/octet-stream", "private, no-store"),
        ):
            async with session.get(f"{server['s3_endpoint']}/{server['s3_bucket']}/{name}") as response:
                assert (response.headers["Content-Type"], response.headers["Cache-Control"]) == (kind, caching)


async def test_a_bucket_that_is_away_or_refuses_is_no_empty_answer(server: dict[str, str], tmp_path: Path) -> None:
    for facts in ({"s3_endpoint": f"http://127.0.0.1:{free_port()}"}, {"s3_bucket": "another"}):
        objects = open_objects(settings_of(tmp_path, **{**server, **facts}))
        for call in (objects.get(UPLOAD), objects.put(UPLOAD, b"x", media="x/y", public=False)):
            with pytest.raises(ObjectsAway):
                await call
        await objects.close()


async def test_a_closed_bucket_opens_again(server: dict[str, str], tmp_path: Path) -> None:
    objects = open_objects(settings_of(tmp_path, **server))
    await objects.put(UPLOAD, b"x", media="x/y", public=False)
    await objects.close()
    assert await objects.get(UPLOAD) == b"x"
    await objects.close()


async def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Folder(tmp_path)
    await objects.put(PICTURE, b"first", media="x/y", public=True)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        await objects.put(PICTURE, b"second", media="x/y", public=True)
    assert await objects.get(PICTURE) == b"first"
    assert files_in(tmp_path) == [PICTURE.removeprefix("media/")]


async def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    objects = Folder(tmp_path)
    bodies = [bytes([n]) * 200_000 for n in range(8)]
    writing = [asyncio.create_task(objects.put(PICTURE, body, media="x/y", public=True)) for body in bodies]
    seen = set()
    while not all(task.done() for task in writing):
        seen.add(await objects.get(PICTURE))
    await asyncio.gather(*writing)
    assert seen <= {None, *bodies}
    assert files_in(tmp_path) == [PICTURE.removeprefix("media/")]


DOCUMENT = "exports/" + "c" * 32 + ".csv"


async def whole(objects: Objects, name: str) -> bytes:
    return b"".join([piece async for piece in objects.pieces(name)])


async def test_an_object_in_parts_is_there_when_it_is_finished(objects: Objects, tmp_path: Path) -> None:
    first, last = os.urandom(PART_BYTES), b"end"
    upload = await objects.begin(DOCUMENT, media="text/csv")
    await objects.put_part(DOCUMENT, upload, 1, b"another try" * 600_000)
    tags = [await objects.put_part(DOCUMENT, upload, n, body) for n, body in ((1, first), (2, last))]
    with pytest.raises(KeyError):
        await whole(objects, DOCUMENT)
    for _ in range(2):  # who finished may die before it can say so
        await objects.finish(DOCUMENT, upload, tags)
        assert await whole(objects, DOCUMENT) == first + last
    if isinstance(objects, Folder):
        assert files_in(tmp_path / "objects") == [DOCUMENT.split("/")[1]]
    await objects.delete(DOCUMENT)


async def test_an_abandoned_object_leaves_nothing(objects: Objects, tmp_path: Path) -> None:
    upload = await objects.begin(DOCUMENT, media="text/csv")
    tag = await objects.put_part(DOCUMENT, upload, 1, b"x")
    for _ in range(2):
        await objects.abandon(DOCUMENT, upload)
    with pytest.raises((ObjectsAway, OSError)):
        await objects.finish(DOCUMENT, upload, [tag])
    with pytest.raises(KeyError):
        await whole(objects, DOCUMENT)
    assert files_in(tmp_path) == []


async def test_an_empty_object_in_parts(objects: Objects) -> None:
    upload = await objects.begin(DOCUMENT, media="text/csv")
    await objects.finish(DOCUMENT, upload, [await objects.put_part(DOCUMENT, upload, 1, b"")])
    assert await whole(objects, DOCUMENT) == b""
    await objects.delete(DOCUMENT)


async def test_a_link_brings_the_object_under_its_name(objects: Objects) -> None:
    await objects.put(DOCUMENT, b"a,b", media="text/csv", public=False)
    link = await objects.link(DOCUMENT, called="expendi-x.csv", media="text/csv; charset=utf-8", seconds=900)
    if isinstance(objects, Folder):
        assert link is None
        return
    assert link is not None
    async with aiohttp.ClientSession() as session, session.get(URL(link, encoded=True)) as got:
        assert (got.status, await got.read()) == (200, b"a,b")
        assert got.headers["Content-Disposition"] == 'attachment; filename="expendi-x.csv"'
        assert got.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "X-Amz-Expires=900" in link
