"""What tokens are worth in US dollars: immutable, exact, and None where nobody knows. Pure.

Two uses, one type: the prices at a block give ledger rows their value for good; the newest stored ones value balances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal

from config.chains import Chain
from handlers.chain_events import (
    ChainEvent,
    DecodedBlock,
    ShareTransfer,
    TokenTransfer,
    VaultDeposit,
    VaultWithdraw,
    WalletEvent,
)
from store.prices import PriceRow
from store.records import ZERO_ADDRESS, Address

USD_PLACES = 18
"""Places of a value that a feed or a share price gives, half to even beyond them: as many as the finest token has and
as ClickHouse keeps. A token that counts as a dollar is never rounded, however many decimals it has."""

EXACT = Context(prec=200)
"""Arithmetic that loses nothing: a uint256 amount times an int256 answer has 155 digits."""

Key = tuple[int, Address]
"""Chain id and token."""


@dataclass(frozen=True, slots=True)
class Share:
    """An ERC-4626 share's price: so many base units of the vault are worth so many of its asset."""

    asset: Address
    assets: int
    shares: int

    def worth(self, raw: int) -> int:
        """Base units of the asset that `raw` shares give, rounded down as the vault itself does."""
        return raw * self.assets // self.shares


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars per whole token by (chain id, token), as feeds said; None: the feed had no answer to be believed."""

    known: Mapping[Key, Decimal | None] = field(default_factory=dict)
    shares: Mapping[Key, Share] = field(default_factory=dict)
    """Vaults by (chain id, share token); a vault is no feed token."""
    read: tuple[PriceRow, ...] = ()
    """What was read at the block at hand and is to be stored with it."""

    def usd(self, chain: Chain, token: Address, raw: int) -> Decimal | None:
        """The value of `raw` base units; None when the token is not listed or has no price."""
        share = self.shares.get((chain.id, token))
        if share is not None:
            return None if share.shares == 0 else self._listed(chain, share.asset, share.worth(raw))
        return self._listed(chain, token, raw)

    def _listed(self, chain: Chain, token: Address, raw: int) -> Decimal | None:
        listed = chain.token(token)
        if listed is None:
            return None
        whole = EXACT.scaleb(Decimal(raw), -listed.decimals)
        if listed.price == "usd":
            return whole
        price = self.known.get((chain.id, token)) if listed.price is not None else None
        return None if price is None else rounded(EXACT.multiply(whole, price))

    def at_block(self, chain_id: int, read: tuple[PriceRow, ...]) -> Prices:
        """With what was read at one block of a chain in the place of what was known."""
        now = {(chain_id, row.token): row.usd for row in read}
        return replace(self, known={**self.known, **now}, read=read)

    def with_shares(self, shares: Mapping[Key, Share]) -> Prices:
        """With these share prices beside those it has."""
        return replace(self, shares={**self.shares, **shares})


NONE = Prices()
"""Nothing but tokens that count as a dollar has a value."""


def rounded(usd: Decimal) -> Decimal:
    """To `USD_PLACES`, half to even; what has no more places stays as it is."""
    exponent = usd.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= -USD_PLACES:
        return usd
    return EXACT.quantize(usd, Decimal(1).scaleb(-USD_PLACES))


@dataclass(frozen=True, slots=True)
class Needed:
    """Tokens whose feeds a block needs: for certain, and those of transfers if any of these users is registered."""

    certain: frozenset[Address] = frozenset()
    if_registered: Mapping[Address, frozenset[Address]] = field(default_factory=dict)

    @property
    def users(self) -> frozenset[Address]:
        """Everyone of whom it has to be known whether they are registered."""
        return frozenset().union(*self.if_registered.values())

    def tokens(self, registered: Iterable[Address]) -> frozenset[Address]:
        """All of them, once that is known."""
        known = set(registered)
        return self.certain | {token for token, users in self.if_registered.items() if users & known}


def needed(chain: Chain, block: DecodedBlock, owners: Mapping[Address, Address | None]) -> Needed:
    """What a block moves that has a feed, and the native coin where its users paid a fee.

    A live block holds everybody's transfers of the listed tokens: those of strangers need no price.
    """
    if not chain.feeds:
        return Needed()
    certain: set[Address] = set()
    if_registered: dict[Address, frozenset[Address]] = {}
    for event in block.events:
        users = _users(event, owners)
        fee = block.fees.get(event.tx_hash)
        moved = {_token(chain, event)} | ({ZERO_ADDRESS} if fee is not None and fee.payer in users else set())
        for token in chain.feeds.keys() & moved:
            if isinstance(event, WalletEvent):
                certain.add(token)
            else:
                if_registered[token] = if_registered.get(token, frozenset()) | users
    unsure = {token: users for token, users in if_registered.items() if token not in certain}
    return Needed(frozenset(certain), unsure)


def _token(chain: Chain, event: ChainEvent) -> Address | None:
    if isinstance(event, TokenTransfer):
        return event.emitter
    vault = chain.vault(event.emitter)
    found: Address | None = vault.asset if vault is not None else getattr(event, "token", None)
    return found


def _users(event: ChainEvent, owners: Mapping[Address, Address | None]) -> frozenset[Address]:
    named: tuple[Address | None, ...] = (getattr(event, "user", None), getattr(event, "spender", None))
    if isinstance(event, VaultDeposit | VaultWithdraw):
        named = (event.owner,)
    elif isinstance(event, ShareTransfer):
        named = (event.sender, event.recipient)
    elif isinstance(event, TokenTransfer):
        named = (event.sender, event.recipient, owners.get(event.recipient))  # the owner of a wallet it is stranded in
    return frozenset(user for user in named if user is not None)
