"""The catalogue of commands a client can send: name, argument, answer. realtime/inbox.py acknowledges them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from handlers.errors import FieldError, Invalid
from store.records import Address

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
MAX_SEQ = 1 << 53
"""JavaScript's integers are exact up to here."""
FIELDS_MAX = 32
"""Fields that one call may have: each that is unknown is an error of its own, and costs as much."""
READ_MAX = 500
"""Notifications that one call may name: some pages of an inbox; `upTo` reaches the rest."""


def _lower_address(text: str) -> Address:
    if not _ADDRESS.fullmatch(text):
        raise ValueError("an address is 0x and 40 hex digits")
    return text.lower()


AnyCaseAddress = Annotated[str, AfterValidator(_lower_address)]


class Command(BaseModel):
    """Base of every command: unknown fields are refused, types are not converted."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", alias_generator=to_camel, use_attribute_docstrings=True
    )

    name: ClassVar[str]
    bare: ClassVar[str | None] = None
    """Field that a bare argument stands for: `emit("join_user_room", "0x...")`."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, argument: Any) -> Any:
        return argument if cls.bare is None or isinstance(argument, Mapping) else {cls.bare: argument}


class JoinUserRoom(Command):
    """Join the room of one's own events. Every socket is in it already; kept for clients of the plan."""

    name = "join_user_room"
    bare = "userId"

    user_id: AnyCaseAddress
    """The caller's own address, in any letter case; every other is refused and audited."""


class SubscribeNotifications(Command):
    """Join the room of one's own notifications. Every socket is in it already; kept for clients of the plan."""

    name = "subscribe_notifications"
    bare = "userId"

    user_id: AnyCaseAddress
    """The caller's own address, in any letter case; every other is refused and audited."""


class Ack(Command):
    """Say what this device has shown. Cumulative: pushes up to `seq` are held back."""

    name = "ack"

    seq: int = Field(ge=0, lt=MAX_SEQ)
    """Highest seq shown; not beyond the end of the log."""


class SetCategory(Command):
    """Give a transaction a category by hand: final, and learned from."""

    name = "set_category"

    transaction_id: str = Field(max_length=128)
    """`<chainId>:<txHash>:<n>`."""
    category_id: UUID = Field(strict=False)
    """One of the defaults or one's own."""
    apply_to_similar: bool = False
    """Also other payments to the same payee, past ones and those to come."""


class SimulateSpend(Command):
    """Ask whether a spend would fit; nothing is written."""

    name = "simulate_spend"

    chain_id: int = Field(ge=1, lt=MAX_SEQ)
    """Chain of the bucket."""
    bucket: str = Field(min_length=1, max_length=256)
    """Id or exact name of one's own bucket."""
    token: AnyCaseAddress
    """Token to be spent."""
    amount: str = Field(pattern=r"^[0-9]{1,78}$")
    """Base units."""


NotificationId = Annotated[UUID, Field(strict=False)]


class MarkRead(Command):
    """Mark notifications as read on every device: those named, or one and all older ones."""

    name = "mark_read"

    notification_ids: list[NotificationId] | None = Field(default=None, min_length=1, max_length=READ_MAX)
    """Ids of notifications of one's own."""
    up_to: NotificationId | None = None
    """The newest one that was read; every older one is read with it."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.notification_ids is None) == (self.up_to is None):
            raise ValueError("give notificationIds or upTo")
        return self


class Renew(Command):
    """Bring a new access token for this socket, before the old one expires and closes it."""

    name = "renew"

    token: str = Field(min_length=1, max_length=512)
    """An access token of the same user."""


COMMANDS: Mapping[str, type[Command]] = {
    command.name: command
    for command in (JoinUserRoom, SubscribeNotifications, Ack, MarkRead, SetCategory, SimulateSpend, Renew)
}


def parse(name: str, arguments: list[Any]) -> Command:
    """Read a command; raises Invalid that names the bad field, and for an unknown name or too many arguments."""
    command = COMMANDS.get(name)
    if command is None:
        raise Invalid(f"There is no such command; there are {', '.join(COMMANDS)}.")
    if len(arguments) > 1:
        raise Invalid(f"{name} takes one argument.")
    if arguments and isinstance(arguments[0], Mapping) and len(arguments[0]) > FIELDS_MAX:
        raise Invalid(f"{name} takes no more than {FIELDS_MAX} fields.")
    try:
        return command.model_validate(arguments[0] if arguments else {})
    except ValidationError as error:
        raise Invalid(
            f"The argument of {name} is not valid.",
            errors=[
                FieldError("".join(f"/{part}" for part in each["loc"]), each["msg"])
                for each in error.errors(include_url=False, include_input=False, include_context=False)
            ],
        ) from error
