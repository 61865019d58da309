from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.commands import COMMANDS, Ack, Command, JoinUserRoom, Renew, parse
from handlers.errors import FieldError, Invalid

ADDRESS = "0x" + "aB" * 20
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_an_address_is_taken_bare_or_named_in_any_case() -> None:
    for argument in (ADDRESS, {"userId": ADDRESS.lower()}):
        command = parse("join_user_room", [argument])
        assert isinstance(command, JoinUserRoom)
        assert command.user_id == ADDRESS.lower()


@pytest.mark.parametrize(
    ("name", "argument", "expected"),
    [("ack", {"seq": 3}, Ack(seq=3)), ("renew", {"token": "t"}, Renew(token="t"))],
)
def test_a_command_is_read(name: str, argument: dict[str, Any], expected: Command) -> None:
    assert parse(name, [argument]) == expected


@pytest.mark.parametrize("argument", [{"seq": "3"}, {"seq": True}, {"seq": 3.0}, {"seq": -1}, {"seq": 1 << 53}, {}])
def test_types_are_not_converted(argument: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        parse("ack", [argument])
    assert [error.pointer for error in refused.value.errors] == ["/seq"]


def test_unknown_fields_are_refused_by_name() -> None:
    with pytest.raises(Invalid) as refused:
        parse("renew", [{"token": "t", "userId": ADDRESS}])
    assert refused.value.errors == (FieldError("/userId", "Extra inputs are not permitted"),)


def test_too_many_fields_are_refused_without_naming_each() -> None:
    with pytest.raises(Invalid, match="no more than 32 fields") as refused:
        parse("ack", [{str(number): number for number in range(7_000)}])
    assert refused.value.errors == ()


def test_an_unknown_command_says_which_there_are() -> None:
    with pytest.raises(Invalid, match=r"join_user_room.*ack.*renew"):
        parse("mark_red", [])


def test_a_refusal_does_not_repeat_the_input() -> None:
    with pytest.raises(Invalid) as refused:
        parse("renew", [{"token": "x" * 600}])
    assert "xxx" not in str(refused.value.body())


def test_every_command_and_field_is_documented() -> None:
    for name, command in COMMANDS.items():
        assert name == command.name
        assert command.__doc__
        assert all(field.description for field in command.model_fields.values()), name


@given(st.sampled_from(sorted(COMMANDS)), st.lists(JSON, max_size=2))
def test_any_json_is_a_command_or_a_problem(name: str, arguments: list[Any]) -> None:
    try:
        command = parse(name, arguments)
    except Invalid:
        return
    assert command.name == name
