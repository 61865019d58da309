"""Positions in a block's working set: loaded only for whoever the block moves one of, changed in log order. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from handlers.rules.yields import Rate
from store.records import Address
from store.yields import Position, PositionKey


@dataclass(frozen=True, slots=True)
class Values:
    """What was read at the end of a block (watchers/yields.py).

    `rates`: vault -> what its shares are worth; `locks`: position id -> current assets; `full`: whether every open
    position of the chain is among them.
    """

    rates: Mapping[Address, Rate] = field(default_factory=dict)
    locks: Mapping[str, int] = field(default_factory=dict)
    full: bool = False

    def of(self, position: Position) -> int | None:
        """What a position is worth by them; None where nothing was read for it."""
        match position.kind:
            case "vault":
                rate = self.rates.get(position.contract)
                return None if rate is None else rate.worth(position.shares)
            case "lock":
                return self.locks.get(position.position_id)
            case "account":
                return position.principal

    def price(self, position: Position) -> Rate | None:
        """The price behind a position: of so many shares, or of a whole lock."""
        if position.kind == "vault":
            return self.rates.get(position.contract)
        assets = self.locks.get(position.position_id)
        return None if assets is None else Rate(assets, 1)


NOTHING_READ = Values()


def vault_position_id(chain_id: int, vault: Address) -> str:
    """Of a user's shares of a vault: `<chainId>:<vault>`."""
    return f"{chain_id}:{vault}"


def lock_position_id(chain_id: int, contract: Address, lock_id: int) -> str:
    """Of a yield lock: `<chainId>:<contract>:<lockId>`."""
    return f"{chain_id}:{contract}:{lock_id}"


def account_position_id(chain_id: int, wallet: Address, identifier: str) -> str:
    """Of what a V2 account holds under one identifier: `<chainId>:<wallet>:<bytes32 as hex>`."""
    return f"{chain_id}:{wallet}:{identifier}"


@dataclass(slots=True)
class Holdings:
    """Positions of everyone the block moves one of, on all chains; only this chain's change."""

    positions: dict[PositionKey, Position] = field(default_factory=dict)
    values: Values = NOTHING_READ
    changed: dict[PositionKey, None] = field(default_factory=dict)
    """By events of the block."""
    drifted: dict[PositionKey, None] = field(default_factory=dict)
    """Whose yield moved by a step with the price alone."""
    causes: dict[Address, tuple[object, ...]] = field(default_factory=dict)
    """What moved a user's positions last."""

    def keep(self, position: Position, *cause: object) -> None:
        """Put a changed position back."""
        self.positions[position.key] = position
        self.changed[position.key] = None
        self.causes[position.user] = cause

    def of(self, user: Address) -> list[Position]:
        """Every position of a user."""
        return [one for one in self.positions.values() if one.user == user]
