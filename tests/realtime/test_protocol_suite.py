"""The checks of the official test suites of Engine.IO 4 and Socket.IO 5 that no other test of ours makes.

Each docstring names the rule. The others: handshake values, bad requests, formats, duplicate and cancelled polls, close
and upgrade by polling are in test_protocol_engine.py; namespaces, packets before CONNECT and bad packets in
test_protocol.py; clients of older protocols in tests/clients/test_matrix.py. Where the suites echo at Engine.IO's
level, these tests do so at Socket.IO's: a message that is no Socket.IO packet ends the session, as the reference does.
"""

from __future__ import annotations

import asyncio
import base64

import aiohttp
import orjson
import pytest

from config import metrics
from realtime.packets import ATTACHED_BYTES, ATTACHMENTS
from tests.realtime.plain import CUSTOM, plain, polling, websocket
from tests.waiting import until

TWO = '452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]'

# -- Engine.IO: handshake --


async def test_a_websocket_opens_a_session() -> None:
    """OPEN has sid, upgrades (none are left), pingInterval, pingTimeout and maxPayload."""
    async with plain() as (_, url), websocket(url) as spoken:
        assert set(spoken.opened) == {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}
        assert isinstance(spoken.opened["sid"], str)
        assert spoken.opened["upgrades"] == []
        assert (spoken.opened["pingInterval"], spoken.opened["pingTimeout"]) == (300, 200)


@pytest.mark.parametrize("query", ["transport=websocket", "EIO=abc&transport=websocket", "EIO=4", "EIO=4&transport=x"])
async def test_a_websocket_with_a_bad_query_is_refused(query: str) -> None:
    """EIO must be 4 and transport one that is served; else the handshake fails."""
    async with plain() as (server, url), aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="400"):
            await session.ws_connect(url.replace("EIO=4", query))
        assert not server.eio.sockets


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_a_session_is_opened_by_get_alone(method: str) -> None:
    """Other methods without a sid are a bad handshake."""
    async with plain() as (_, url), aiohttp.ClientSession() as session:
        async with session.request(method, f"{url}&transport=polling") as response:
            assert response.status == 400
        async with polling(url) as polled:
            async with polled.session.put(polled.url, data="3") as response:
                assert response.status == 400
            assert await polled.post("1") == (200, "ok")


# -- Engine.IO: messages by polling --


async def test_polling_carries_one_packet() -> None:
    """A payload of one packet is the packet; `ok` answers a POST."""
    async with plain() as (_, url), polling(url) as polled:
        assert await polled.post("40") == (200, "ok")
        connected, auth = await polled.heard(2)
        assert (connected[:3], auth) == ("40{", '42["auth",{}]')
        assert await polled.post('42["message","hello"]') == (200, "ok")
        assert await polled.heard(1) == ['42["message-back","hello"]']
        await polled.post("1")


async def test_polling_carries_several_packets_in_order() -> None:
    """Packets of one payload are separated by \\x1e, both ways."""
    async with plain() as (_, url), polling(url) as polled:
        await polled.post("40")
        await polled.heard(2)
        packets = [f'42["message","test{number}"]' for number in range(1, 4)]
        assert await polled.post("\x1e".join(packets)) == (200, "ok")
        answers = [packet.replace('"message"', '"message-back"') for packet in packets]
        assert await polled.heard(3) == answers
        await polled.post("1")


async def test_polling_carries_binary_as_base64() -> None:
    """`b` and base64 are a binary message, both ways, in order with the text around them."""
    async with plain() as (_, url), polling(url) as polled:
        await polled.post("40")
        await polled.heard(2)
        assert await polled.post(TWO + "\x1ebAQID\x1ebBAUG") == (200, "ok")
        assert await polled.heard(3) == [TWO.replace("message", "message-back"), "bAQID", "bBAUG"]
        assert await polled.post(TWO + "\x1ebAQID") == (200, "ok")
        assert await polled.post('bBAUG\x1e42["message",1]') == (200, "ok")
        assert await polled.heard(4) == [
            TWO.replace("message", "message-back"),
            "bAQID",
            "bBAUG",
            '42["message-back",1]',
        ]
        await polled.post("1")


@pytest.mark.parametrize("body", ["bAQID", TWO + "\x1eb%%%", TWO + "\x1ebAQI", TWO + '\x1e42["message"]', "b"])
async def test_binary_that_nobody_announced_or_that_is_no_base64_ends_a_polling_session(body: str) -> None:
    """An invalid packet closes the session: 400, and 400 for what follows."""
    async with plain() as (_, url), polling(url) as polled:
        await polled.post("40")
        await polled.heard(2)
        assert (await polled.post(body))[0] == 400
        assert (await polled.get())[0] == 400


async def test_posts_that_overlap_end_the_session_and_those_in_a_row_do_not() -> None:
    """One POST at a time; polls and posts may overlap each other."""
    async with plain() as (server, url), polling(url) as polled:
        await polled.post("40")
        await polled.heard(2)
        waiting = asyncio.create_task(polled.heard(20))
        for number in range(20):
            assert await polled.post(f'42["message",{number}]') == (200, "ok")
        assert await waiting == [f'42["message-back",{number}]' for number in range(20)]
        (session,) = server.eio.sockets.values()
        _, writer = await asyncio.open_connection(*url.split("/")[2].split(":"))
        path = "/" + polled.url.split("/", 3)[3]
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n42".encode())
        await until(lambda: session._posting)
        assert (await polled.post("3"))[0] == 400
        assert (await polled.get())[0] == 400
        writer.close()


# -- Engine.IO: heartbeat and close --


async def test_a_polling_session_without_a_pong_is_gone() -> None:
    """After interval and timeout the sid is unknown."""
    async with plain() as (server, url), polling(url) as polled:
        await until(lambda: not server.eio.sockets)
        assert (await polled.get())[0] == 400
        assert (await polled.post("3"))[0] == 400


async def test_a_websocket_that_answers_each_ping_stays() -> None:
    """The server pings, the client answers; also before CONNECT."""
    async with plain() as (_, url), websocket(url) as spoken:
        for _ in range(3):
            assert await spoken.hear(pings=True) == "2"
            await spoken.say("3")
        await spoken.join()


async def test_a_close_packet_closes_the_websocket() -> None:
    """Packet 1 ends the session."""
    async with plain() as (_, url), websocket(url) as spoken:
        await spoken.say("1")
        assert await spoken.hear() is None


async def test_a_second_websocket_of_an_upgraded_session_is_refused_and_the_first_goes_on() -> None:
    """Requests with a sid that has upgraded are refused, whatever their transport."""
    async with plain(ping_interval_s=30) as (_, url), polling(url) as polled:
        upgrade = polled.url.replace("polling", "websocket")
        async with polled.session.ws_connect(upgrade) as ws:
            await ws.send_str("2probe")
            assert (await ws.receive()).data == "3probe"
            await ws.send_str("5")
            await ws.send_str("40")
            assert str((await ws.receive()).data).startswith("40{")
            with pytest.raises(aiohttp.WSServerHandshakeError, match="400"):
                await polled.session.ws_connect(upgrade)
            assert (await polled.get())[0] == 400
            assert (await polled.post("3"))[0] == 400
            await ws.send_str('42["message","hello"]')
            packets = [(await ws.receive()).data for _ in range(2)]
            assert packets == ['42["auth",{}]', '42["message-back","hello"]']


async def test_a_probe_is_answered_before_a_ping_of_the_websocket_and_ends_an_open_poll_with_a_noop() -> None:
    """NOOP ends the poll that waits; control frames of the websocket do not disturb the upgrade."""
    async with plain(ping_interval_s=30) as (_, url), polling(url) as polled:
        waiting = asyncio.create_task(polled.get())
        async with polled.session.ws_connect(polled.url.replace("polling", "websocket"), autoping=False) as ws:
            await ws.ping(b"are you there")
            await ws.send_str("2probe")
            assert (await ws.receive()).type is aiohttp.WSMsgType.PONG
            assert (await ws.receive()).data == "3probe"
            assert await waiting == (200, "6")
            await ws.send_str("5")
            await ws.ping(b"and now")
            pong = await ws.receive()
            assert (pong.type, pong.data) == (aiohttp.WSMsgType.PONG, b"and now")


# -- Socket.IO: connect and disconnect --


@pytest.mark.parametrize(("namespace", "prefix"), [("", "40"), (CUSTOM + ",", f"40{CUSTOM},")])
@pytest.mark.parametrize("auth", ["", '{"token":"123"}'])
async def test_connect_is_answered_with_a_sid_alone(namespace: str, prefix: str, auth: str) -> None:
    """CONNECT to `/` and to another namespace, with a payload and without one."""
    async with plain() as (_, url), websocket(url) as spoken:
        await spoken.say(f"40{namespace}{auth}")
        answer = str(await spoken.hear())
        assert answer.startswith(prefix)
        assert set(orjson.loads(answer[len(prefix) :])) == {"sid"}
        if not namespace:
            assert await spoken.hear() == f'42["auth",{auth or "{}"}]'


@pytest.mark.parametrize("packet", ["4abc", "4", "40abc", '40["array"]', "40null,", "4x"])
async def test_an_invalid_connect_closes_the_connection(packet: str) -> None:
    """The first packet must be a CONNECT that can be read."""
    async with plain() as (_, url), websocket(url) as spoken:
        await spoken.say(packet)
        assert await spoken.hear() is None


async def test_who_left_the_main_namespace_keeps_the_connection() -> None:
    """DISCONNECT of `/` does not close the transport: the next ping comes."""
    async with plain() as (_, url), websocket(url) as spoken:
        await spoken.join()
        await spoken.say("41")
        assert await spoken.hear(pings=True) == "2"
        await spoken.say("3")
        await spoken.join()


async def test_who_left_another_namespace_stays_in_the_main_one() -> None:
    """Namespaces of one connection are independent."""
    async with plain() as (_, url), websocket(url) as spoken:
        await spoken.join()
        await spoken.say(f"40{CUSTOM}")
        assert str(await spoken.hear()).startswith(f"40{CUSTOM},")
        await spoken.say(f"41{CUSTOM}", '42["message","message to main namespace"]')
        assert await spoken.hear() == '42["message-back","message to main namespace"]'


# -- Socket.IO: messages --


async def test_an_event_carries_any_json() -> None:
    """Arguments arrive as they were sent."""
    async with plain() as (_, url), websocket(url) as spoken:
        await spoken.join()
        await spoken.say('42["message",1,"2",{"3":[true]}]')
        assert await spoken.hear() == '42["message-back",1,"2",{"3":[true]}]'


async def test_an_event_carries_attachments() -> None:
    """BINARY_EVENT: placeholders, then one binary message each, wherever they stand and in whatever order."""
    async with plain() as (_, url), websocket(url) as spoken:
        await spoken.join()
        await spoken.say(TWO, b"\1\2\3", b"\4\5\6")
        answers = [await spoken.hear() for _ in range(3)]
        assert answers == [TWO.replace("message", "message-back"), b"\1\2\3", b"\4\5\6"]
        await spoken.say('452-["message",{"in":[{"_placeholder":true,"num":1}],"x":{"_placeholder":true,"num":0}}]')
        await spoken.say(b"first", "3", b"second")
        answers = [await spoken.hear() for _ in range(3)]
        assert answers[1:] == [b"second", b"first"]
        assert str(answers[0]).startswith('452-["message-back",{"in":[')


async def test_an_acknowledgement_has_the_number_of_its_event() -> None:
    """ACK, and BINARY_ACK for an event with an attachment."""
    async with plain() as (_, url), websocket(url) as spoken:
        await spoken.join()
        await spoken.say('42456["message-with-ack",1,"2",{"3":[false]}]')
        assert await spoken.hear() == '43456[1,"2",{"3":[false]}]'
        await spoken.say('451-789["message-with-ack",{"_placeholder":true,"num":0}]', b"\7\10")
        assert [await spoken.hear() for _ in range(2)] == ['461-789[{"_placeholder":true,"num":0}]', b"\7\10"]


async def test_a_call_is_answered_with_an_attachment() -> None:
    """BINARY_ACK of the client."""
    async with plain() as (server, url), websocket(url) as spoken:
        await spoken.join()
        (sid,) = server.manager.rooms["/"][None]
        calling = asyncio.create_task(server.call("question", to=sid))
        assert await spoken.hear() == '421["question"]'
        await spoken.say('461-1[{"_placeholder":true,"num":0}]', b"\1\2")
        assert await calling == b"\1\2"


@pytest.mark.parametrize(
    "packets",
    [
        ['42abc["message-with-ack",1,"2"]'],
        ["42{}"],
        ["4abc"],
        ["45"],
        ["451-{}", b"x"],
        [f'45{ATTACHMENTS + 1}-["message"]'],
        ['45-1-["message"]'],
        ['451-["message",{"_placeholder":true,"num":1}]', b"x"],
        ['451-["message",{"_placeholder":true,"num":-1}]', b"x"],
        ['451-["message",{"_placeholder":true,"num":0.0}]', b"x"],
        ['451-["message",{"_placeholder":true}]', b"x"],
        ['451-["message",{"_placeholder":true,"num":true}]', b"x"],
        ['451-["disconnect",{"_placeholder":true,"num":0}]', b"x"],
        [TWO, b"x", '42["message"]'],
        [TWO, b"x" * (ATTACHED_BYTES // 2 + 1), b"x" * (ATTACHED_BYTES // 2)],
        [TWO, b"x", b"x", b"one too many"],
        [b"unannounced"],
        ["bAQID"],
    ],
)
async def test_an_invalid_packet_closes_the_connection(packets: list[str | bytes]) -> None:
    """Formats, acknowledgement numbers, attachments that are too many, too large, misplaced or missing."""
    async with plain(ping_interval_s=30) as (_, url), websocket(url) as spoken:
        await spoken.join()
        closed = metrics.SOCKETS_CLOSED.labels("bad_packet")._value
        before = closed.get()
        await spoken.say(*packets)
        while (heard := await spoken.hear()) is not None:
            assert heard in {TWO.replace("message", "message-back"), b"x"}
        assert closed.get() == before + 1, "it ended otherwise than by a refusal"


def test_the_base64_of_these_tests_is_what_they_say() -> None:
    assert base64.b64decode("AQID") + base64.b64decode("BAUG") == b"\1\2\3\4\5\6"
