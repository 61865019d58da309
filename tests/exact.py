"""JSON as a client may read it: a number with a point in it would be a float there, and no amount, ratio or time is."""

from __future__ import annotations

import json
from typing import Any


def exact(text: bytes | str) -> Any:
    """Read JSON; fails on a float anywhere in it."""
    return json.loads(text, parse_float=_refuse)


def _refuse(text: str) -> Any:
    raise AssertionError(f"{text} is a float: ratios and amounts are decimal strings")
