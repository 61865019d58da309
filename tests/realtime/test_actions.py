"""Commands about the user on a real application: what one device does, the others are told."""

from __future__ import annotations

from uuid import uuid4

from handlers.deps import Deps
from store.postgres import Pool
from tests.factories import TIME
from tests.realtime.served import serving
from tests.realtime.test_app import deps, socket
from tests.store.test_notifications import make_notice, record

__all__ = ["deps"]


async def test_read_on_one_device_is_read_on_all(deps: Deps, pool: Pool) -> None:
    async with serving(deps) as anyone:
        me = await anyone.signed_in()
        notices = [make_notice(f"e{n}", user=me.address, created_at=TIME) for n in range(2)]
        await record(pool, *notices)
        async with socket(me) as phone, socket(me) as browser:
            await browser.event("snapshot")
            await phone.event("snapshot")
            answer = await phone.ask(1, "mark_read", {"notificationIds": [str(notices[0].id)]})
            assert answer == {"ok": True, "data": {"unreadCount": 1}}
            told = await browser.event("unread_count")
            assert (told["unreadCount"], told["seq"]) == (1, 1)
            answer = await browser.ask(2, "mark_read", {"upTo": str(max(notice.id for notice in notices))})
            assert answer["data"] == {"unreadCount": 0}
            while (await phone.event("unread_count"))["unreadCount"]:
                pass  # the first may have come before the acknowledgement, or not
            refused = await phone.ask(3, "mark_read", {"upTo": str(uuid4())})
            assert refused["error"]["code"] == "not_found"
            refused = await phone.ask(4, "mark_read", {})
            assert refused["error"]["code"] == "invalid_request"
