"""What ends the demo: an invariant that does not hold, or a part of the product that does not answer."""

from __future__ import annotations


class DemoFailed(Exception):
    """The demo can't go on or proved something wrong; the message is the reason, for a person to read."""
