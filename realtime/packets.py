"""Socket.IO packets of clients: what they may send, looked at before it is parsed, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import orjson
from socketio import packet

from realtime.rooms import ROOT

RESERVED = frozenset({"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"})
"""Names that client libraries emit by themselves; nobody may send them."""
CONNECT_CHARS = 4096
"""Characters of a packet of a socket that has not signed in: a token and a position have some 700 at most."""
PARTS = 256
"""Arrays and objects (brackets and braces, also those in strings) of one packet: commands have a handful. Each is an
object that the garbage collector looks at, and 64 KiB hold 20,000 of them."""
ATTACHMENTS = 8
"""Binary attachments of one packet; no command takes any, so they are there for its refusal."""
ATTACHED_BYTES = 64 * 1024
"""Bytes of all attachments of one packet: as much as one message may have."""

_HEAD = re.compile(
    r"(?:([0-3])|([56])([0-9]{1,2})-)(?:(/[^,?]{0,100})(?:\?[^,]*)?(?:,|$))?([0-9]{1,15})?(.*)", re.DOTALL
)
_TEXT_FORM = {packet.BINARY_EVENT: packet.EVENT, packet.BINARY_ACK: packet.ACK}


class BadPacket(ValueError):
    """Text that is no Socket.IO packet a client may send, or an attachment that belongs to none."""


class Json:
    """orjson under the names that python-socketio calls."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        """Compact JSON text."""
        return orjson.dumps(value).decode()

    @staticmethod
    def loads(text: str) -> Any:
        """Strict JSON; raises ValueError."""
        return orjson.loads(text)


class Packet(packet.Packet):  # type: ignore[misc]  # socketio ships no types
    """A packet whose decoder takes only what a client may send. A binary one has the type of its text form."""

    json = Json
    data: Any
    namespace: str

    def decode(self, encoded_packet: Any) -> int:
        """Decode text; raises BadPacket. Returns how many attachments follow."""
        found = _HEAD.fullmatch(encoded_packet) if isinstance(encoded_packet, str) else None
        if found is None:
            raise BadPacket("not a packet")
        kind, binary_kind, attached, namespace, number, data = found.groups()
        self.packet_type = int(kind or binary_kind)
        self.packet_type = _TEXT_FORM.get(self.packet_type, self.packet_type)
        self.attachment_count = int(attached or 0)
        self.namespace = namespace or ROOT
        self.id = int(number) if number else None
        try:
            self.data = orjson.loads(data) if data else None
        except orjson.JSONDecodeError as error:
            raise BadPacket("not JSON") from error
        if not self._is_well_formed():
            raise BadPacket("wrong arguments")
        if self.attachment_count > ATTACHMENTS:
            raise BadPacket("too many attachments")
        return self.attachment_count

    def _is_well_formed(self) -> bool:
        data = self.data
        if self.packet_type == packet.CONNECT:
            return self.id is None and (data is None or isinstance(data, dict))
        if self.packet_type == packet.DISCONNECT:
            return self.id is None and data is None
        if self.packet_type == packet.ACK:
            return self.id is not None and isinstance(data, list)
        return isinstance(data, list) and bool(data) and isinstance(data[0], str) and data[0] not in RESERVED

    @property
    def is_complete(self) -> bool:
        """Whether no attachment is missing."""
        return len(self.attachments) == self.attachment_count

    def attach(self, data: bytes) -> None:
        """Take the next attachment; the last one puts all in their places. Raises BadPacket."""
        self.attachments.append(data)
        if sum(map(len, self.attachments)) > ATTACHED_BYTES:
            raise BadPacket("attachments are too large")
        if self.is_complete:
            self.data = self._filled(self.data)

    def _filled(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        if not isinstance(value, dict):
            return value
        if value.get("_placeholder") is not True:
            return {key: self._filled(each) for key, each in value.items()}
        number = value.get("num")
        if type(number) is not int or not 0 <= number < len(self.attachments):
            raise BadPacket("no such attachment")
        return self.attachments[number]


def look(text: str, *, signed_in: bool) -> None:
    """Refuse, before anything is parsed, what can't be a packet of this socket; raises BadPacket."""
    if not text:
        raise BadPacket("not a packet")
    if not signed_in:
        if text[0] != "0" and text[1:2] != "/":
            raise BadPacket("packet before CONNECT")
        if len(text) > CONNECT_CHARS:
            raise BadPacket("CONNECT is too large")
    if len(text) > PARTS and text.count("[") + text.count("{") > PARTS:
        raise BadPacket("too many parts")
