"""What tokens are worth in US dollars: immutable, exact, and None where nobody knows. Pure.

Two uses, one type: the prices at a block give ledger rows their value for good; the newest stored ones value balances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal

from config.chains import Chain
from store.prices import PriceRow
from store.records import Address

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
