"""Amounts as text: integers in, decimal strings out; a float never touches money."""

from __future__ import annotations

from decimal import Decimal

from config.chains import Chain
from handlers.rules.prices import Prices
from store.records import ZERO_ADDRESS, Address

ETHER_DECIMALS = 18
USD_PLACES = 2
"""Cents are always shown; finer digits only where the amount has them."""

RATIO_PLACES = 6


def plain_text(raw: int, decimals: int) -> str:
    """Base units as whole tokens, exact, with at least two places: `12500000, 6` is `12.50`."""
    sign, digits = ("-", -raw) if raw < 0 else ("", raw)
    text = str(digits).rjust(decimals + 1, "0")
    whole, fraction = (text[:-decimals], text[-decimals:]) if decimals else (text, "")
    return f"{sign}{whole}.{fraction.rstrip('0').ljust(USD_PLACES, '0')}"


def dollars(amount: Decimal) -> str:
    """Exact dollars with at least cents: `Decimal("12.5")` is `12.50`."""
    text = f"{amount:f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(USD_PLACES, '0')}"


def ratio_text(part: int, whole: int) -> str | None:
    """`part / whole` rounded half up to six places; None where the divisor is 0."""
    if whole == 0:
        return None
    scaled = (abs(part) * 10**RATIO_PLACES * 2 + whole) // (2 * whole)
    text = str(scaled).rjust(RATIO_PLACES + 1, "0")
    fraction = text[-RATIO_PLACES:].rstrip("0")
    sign = "-" if part < 0 and scaled else ""
    return sign + text[:-RATIO_PLACES] + ("." + fraction if fraction else "")


def token_facts(chain: Chain, token: Address) -> tuple[str | None, int | None]:
    """Symbol and decimals; (None, None) for a token the table doesn't list."""
    listed = chain.token(token)
    if listed is not None:
        return listed.symbol, listed.decimals
    vault = chain.vault(token)
    if vault is not None:
        return vault.name, vault.decimals
    if token == ZERO_ADDRESS:
        return "ETH", ETHER_DECIMALS
    return None, None


def amount_text(chain: Chain, token: Address, raw: int) -> str:
    """An amount for people: `$12.50`, `0.5 WETH`, or base units of a token that isn't listed."""
    symbol, decimals = token_facts(chain, token)
    if decimals is None:
        return f"{raw} base units of {token}"
    plain = plain_text(raw, decimals)
    listed = chain.token(token)
    return f"${plain}" if listed is not None and listed.price == "usd" else f"{plain} {symbol}"


def amount(chain: Chain, token: Address, raw: int, *, prices: Prices) -> dict[str, object]:
    """A token amount as it goes on the wire; `usd` is null when no price is known, never a guess."""
    symbol, decimals = token_facts(chain, token)
    return valued(raw, decimals, symbol=symbol, token=token, usd=prices.usd(chain, token, raw))


def valued(
    raw: int, decimals: int | None, *, symbol: str | None, token: Address, usd: Decimal | None
) -> dict[str, object]:
    """A token amount whose value is known already."""
    shown = None if usd is None else dollars(usd)
    return {"raw": str(raw), "decimals": decimals, "symbol": symbol, "token": token, "usd": shown}
