from __future__ import annotations

import io

import aiohttp
import pytest

from handlers.deps import Deps
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime.served import Client, Got
from tests.realtime.test_rest_categories import FOOD, PICTURE, finish, uploads
from tests.realtime.test_rest_categories import send as send_icon
from tests.realtime.test_rest_friends import befriend
from tests.realtime.wiring import busy, wire

PATH = "/v1/me/avatar"


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    return wire(pool, busy(make_settings, upload_limit_per_minute=100, cdn_url="https://cdn.example"))


async def send(client: Client, raw: bytes) -> Got:
    form = aiohttp.FormData()
    form.add_field("image", io.BytesIO(raw), filename="me.png", content_type="image/png")
    return await client.call("POST", PATH, data=form)


async def shown(client: Client) -> str | None:
    url: str | None = (await client.get("/v1/me")).json["avatarUrl"]
    return url


async def test_an_avatar_goes_the_way_of_every_picture_and_friends_see_it(
    me: Client, anyone: Client, deps: Deps
) -> None:
    you = await anyone.signed_in()
    await befriend(me, you)
    assert (await me.get(PATH)).status == 404
    tag = (await me.get("/v1/me")).headers["ETag"]
    got = await send(me, PICTURE)
    assert (got.status, got.json["status"], got.headers["Location"]) == (202, "queued", PATH)
    await finish(deps, {64: b"small", 256: b"large"})
    status = (await me.get(PATH)).json
    assert status["status"] == "done"
    assert status["avatarUrl"].startswith("https://cdn.example/media/")
    assert await shown(me) == status["avatarUrl"]
    assert (await me.get("/v1/me")).headers["ETag"] != tag
    assert [each["avatarUrl"] for each in (await you.get("/v1/friends")).json["data"]] == [status["avatarUrl"]]
    assert await shown(you) is None
    assert [(await me.call("DELETE", PATH)).status, (await me.call("DELETE", PATH)).status] == [204, 404]
    assert await shown(me) is None
    assert [each["avatarUrl"] for each in (await you.get("/v1/friends")).json["data"]] == [None]


async def test_an_avatar_and_icons_do_not_touch_each_other(me: Client, deps: Deps, pool: Pool) -> None:
    await send_icon(me, FOOD, PICTURE)
    await finish(deps, {64: b"small", 256: b"icon"})
    await pool.execute("DELETE FROM outbox")
    for large in (b"avatar", b"another"):
        await send(me, PICTURE)
        await finish(deps, {64: b"small", 256: large})
        await pool.execute("DELETE FROM outbox")
    icon = (await me.get(f"/v1/categories/{FOOD}/image")).json["iconUrl"]
    assert icon not in (None, await shown(me))
    assert await pool.fetchval("SELECT count(*) FROM category_images") == 2
    await me.call("DELETE", PATH)
    assert (await me.get(f"/v1/categories/{FOOD}/image")).json["iconUrl"] == icon


async def test_friends_are_not_sent_to_a_server_of_the_users(me: Client, anyone: Client) -> None:
    """Whoever looks would be known there by address and time."""
    you = await anyone.signed_in()
    await befriend(me, you)
    await me.call("PATCH", "/v1/me", json={"avatarUrl": "https://spy.example/1.png"})
    assert [each["avatarUrl"] for each in (await you.get("/v1/friends")).json["data"]] == [None]


async def test_what_is_no_picture_is_turned_away(me: Client, deps: Deps) -> None:
    assert (await send(me, b"<svg>")).status == 415
    assert uploads(deps) == []
