"""The unsubscribe link as mail programs and browsers use it."""

from __future__ import annotations

from uuid import UUID

from config.settings import Settings
from handlers.rules.unsubscribe import PATH, token
from store.postgres import Pool
from tests.realtime.served import Client


async def letter_token(client: Client, pool: Pool) -> str:
    """Token of a digest that a user of this server got; all test settings have one secret."""
    letter: UUID = await pool.fetchval(
        "INSERT INTO mails (user_address, subject, kind, not_before) VALUES ($1, 'x', 'digest', now()) RETURNING id",
        client.address,
    )
    return token(Settings(secret_key="k" * 32), letter)


async def test_mail_program_ends_digests_with_one_post(anyone: Client, pool: Pool) -> None:
    me = await anyone.signed_in()
    path = PATH + await letter_token(me, pool)
    got = await anyone.call(
        "POST",
        path,
        data="List-Unsubscribe=One-Click",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert got.status == 200
    assert await pool.fetchval("SELECT digest FROM users WHERE address = $1", me.address) == "off"


async def test_looking_at_the_link_ends_nothing_and_its_button_does(anyone: Client, pool: Pool) -> None:
    me = await anyone.signed_in()
    path = PATH + await letter_token(me, pool)
    page = await anyone.get(path)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b'<form method="post">' in page.body
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert await pool.fetchval("SELECT digest FROM users WHERE address = $1", me.address) == "weekly"
    # a page that sends no referrer has the origin "null"
    for origin in ("null", "https://mail.example"):
        pressed = await anyone.call("POST", path, headers={"Origin": origin})
        assert pressed.status == 200
        assert "Access-Control-Allow-Origin" not in pressed.headers
    assert b"Done" in pressed.body
    assert await pool.fetchval("SELECT digest FROM users WHERE address = $1", me.address) == "off"


async def test_other_paths_still_refuse_strange_pages(anyone: Client) -> None:
    assert (await anyone.call("POST", "/v1/auth/nonce", headers={"Origin": "null"})).status == 403


async def test_made_up_link_is_not_found(anyone: Client) -> None:
    for made_up in ("x", "A" * 43, "%00"):
        assert (await anyone.get(PATH + made_up)).status == 404
        assert (await anyone.post(PATH + made_up)).status == 404
