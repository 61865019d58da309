"""How risky a position is. Pure."""

from __future__ import annotations

from typing import Literal

RiskLevel = Literal["low", "medium", "high"]


def position_risk(protocol_class: RiskLevel) -> RiskLevel:
    """The level of one position, by the class that the chain table gives its protocol."""
    return protocol_class
