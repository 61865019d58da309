"""Our register of sockets beside the stock one: the same answers, whatever happens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from socketio import AsyncManager

from realtime.rooms import ROOT, Rooms

SIDS = ("s1", "s2", "s3")
ROOMS = ("a", "b", "c")

STEP = st.one_of(
    st.tuples(st.just("enter"), st.sampled_from(SIDS), st.sampled_from((*ROOMS, *SIDS))),
    st.tuples(st.just("leave"), st.sampled_from(SIDS), st.sampled_from(ROOMS)),
    st.tuples(st.just("close"), st.just(""), st.sampled_from((*ROOMS, *SIDS))),
    st.tuples(st.just("connect"), st.sampled_from(SIDS), st.just("")),
    st.tuples(st.just("disconnect"), st.sampled_from(SIDS), st.just("")),
)


def registers() -> tuple[Rooms, AsyncManager]:
    ours, stock = Rooms(), AsyncManager()
    for manager in (ours, stock):
        manager.server = SimpleNamespace(eio=SimpleNamespace(sockets={}))
    return ours, stock


def apply(manager: Any, step: tuple[str, str, str]) -> str | None:
    """Do one step; returns the refusal."""
    what, sid, room = step
    connected = manager.is_connected(sid, ROOT)
    try:
        if what == "connect" and not connected:
            manager.basic_enter_room(sid, ROOT, None, eio_sid=f"eio-{sid}")
            manager.basic_enter_room(sid, ROOT, sid, eio_sid=f"eio-{sid}")
        elif what == "enter" and connected:  # the stock one is left with an empty room otherwise
            manager.basic_enter_room(sid, ROOT, room)
        elif what == "leave":
            manager.basic_leave_room(sid, ROOT, room)
        elif what == "close":
            manager.basic_close_room(room, ROOT)
        elif what == "disconnect":
            manager.basic_disconnect(sid, ROOT)
    except ValueError as error:
        return str(error)
    return None


@given(st.lists(STEP, max_size=25))
@example([("connect", "s1", ""), ("enter", "s1", "s2"), ("connect", "s2", "")])
def test_any_history_gives_the_stock_register_s_answers(steps: list[tuple[str, str, str]]) -> None:
    ours, stock = registers()
    for step in steps:
        assert apply(ours, step) == apply(stock, step)
        for room in (None, *ROOMS, *SIDS, ["a", "b"], ["c", "s1"]):
            assert dict(ours.get_participants(ROOT, room)) == dict(stock.get_participants(ROOT, room)), (step, room)
        for sid in SIDS:
            assert sorted(ours.get_rooms(sid, ROOT)) == sorted(stock.get_rooms(sid, ROOT))
            assert ours.is_connected(sid, ROOT) == stock.is_connected(sid, ROOT)
            assert ours.sid_from_eio_sid(f"eio-{sid}", ROOT) == stock.sid_from_eio_sid(f"eio-{sid}", ROOT)
    for sid in SIDS:
        apply(ours, ("disconnect", sid, ""))
    assert not ours.rooms
    assert not ours._joined


def test_listeners_hear_of_each_change_once_and_may_refuse() -> None:
    ours, _ = registers()
    heard: list[tuple[str, str]] = []
    socket: Any = object()
    ours.server.eio.sockets["eio"] = socket
    ours.on_enter = lambda _, room: heard.append(("enter", room))
    ours.on_leave = lambda _, room: heard.append(("leave", room))
    ours.register("s", "eio", rooms=("a",))
    ours.basic_enter_room("s", ROOT, "a")
    ours.basic_disconnect("s", ROOT)
    ours.basic_disconnect("s", ROOT)
    assert heard == [("enter", "s"), ("enter", "a"), ("leave", "a"), ("leave", "s")]

    def refuse(_: object, room: str) -> None:
        if room == "b":
            raise ValueError(room)

    ours.on_enter = refuse
    ours.register("s", "eio")
    with pytest.raises(ValueError, match="b"):
        ours.basic_enter_room("s", ROOT, "b")
    assert ours.get_rooms("s", ROOT) == ["s"]
    assert not list(ours.get_participants(ROOT, "b"))
