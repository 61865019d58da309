"""What notifications and devices take and answer over REST, beyond the resources of handlers/resources.py."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from handlers.commands import READ_MAX
from handlers.resources import NoticeKind, Notification, Resource, Time
from realtime.rest import shapes

LOCALE = r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}$"


class Notifications(shapes.Listed):
    """Notifications, newest first."""

    data: list[Notification]


class Read(Resource):
    """What was read: either some notifications, or one and every older one."""

    notification_ids: Annotated[list[UUID] | None, Field(min_length=1, max_length=READ_MAX)] = None
    up_to: UUID | None = Field(default=None, description="The newest one that was read.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Read:
        if (self.notification_ids is None) == (self.up_to is None):
            raise ValueError("Give notificationIds or upTo.")
        return self


class Unread(Resource):
    """How many notifications are not read now."""

    unread_count: int


class Preference(Resource):
    """Where notifications of a kind go."""

    kind: NoticeKind
    inbox: bool
    push: bool
    email: bool


class Preferences(Resource):
    """Every kind of notification."""

    data: list[Preference]


class WantedChannels(Resource):
    """Where notifications of a kind are to go; a channel that is left out stays as it is."""

    kind: NoticeKind
    inbox: bool | None = None
    push: bool | None = None
    email: bool | None = None


class SetPreferences(Resource):
    """Some kinds of notifications."""

    data: Annotated[list[WantedChannels], Field(max_length=50)]


class Register(Resource):
    """A device that is to be told by push; the same token again brings its row up to date."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[\x21-\x7e]+$")]
    platform: Literal["android", "ios", "web"]
    locale: Annotated[str, StringConstraints(max_length=35, pattern=LOCALE)] = "en"
    app_version: Annotated[str, StringConstraints(max_length=64, pattern=r"^[\x20-\x7e]*$")] = ""
    replaces: Annotated[str, StringConstraints(max_length=4096)] | None = Field(
        default=None, description="The token that the provider exchanged for this one, when the app knows it."
    )


class Device(Resource):
    """A registered device; its token is never given back."""

    id: str
    platform: Literal["android", "ios", "web"]
    locale: str
    app_version: str
    created_at: Time
    updated_at: Time


class Devices(shapes.Listed):
    """The user's devices, the last registered first."""

    data: list[Device]
