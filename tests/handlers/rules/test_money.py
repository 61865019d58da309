from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.chains import Feed, Token
from handlers.rules.money import amount, plain_text, ratio_text
from handlers.rules.prices import NONE
from store.records import ZERO_ADDRESS
from tests.handlers.scripted import OTHER_TOKEN, USDC, make_chain

UINT256 = 2**256 - 1


@pytest.mark.parametrize(
    ("raw", "decimals", "text"),
    [
        (12_500_000, 6, "12.50"),
        (0, 6, "0.00"),
        (1, 6, "0.000001"),
        (-1, 6, "-0.000001"),
        (100, 0, "100.00"),
        (999_999, 6, "0.999999"),
        (UINT256, 6, "115792089237316195423570985008687907853269984665640564039457584007913129.639935"),
    ],
)
def test_usd_is_exact_and_shows_cents(raw: int, decimals: int, text: str) -> None:
    assert plain_text(raw, decimals) == text


@given(st.integers(-UINT256, UINT256), st.integers(0, 36))
def test_plain_text_loses_no_digit(raw: int, decimals: int) -> None:
    sign, digits, exponent = Decimal(plain_text(raw, decimals)).as_tuple()
    assert isinstance(exponent, int)
    value = int("".join(map(str, digits))) * (-1 if sign else 1)
    shift = decimals + exponent
    assert (value * 10**shift if shift >= 0 else value // 10**-shift) == raw


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (80, 100, "0.8"),
        (100, 100, "1"),
        (0, 100, "0"),
        (1, 3, "0.333333"),
        (2, 3, "0.666667"),
        (250, 100, "2.5"),
        (-1, 3, "-0.333333"),
        (5, 0, None),
    ],
)
def test_ratio_is_a_decimal_and_null_without_a_divisor(part: int, whole: int, text: str | None) -> None:
    assert ratio_text(part, whole) == text


def test_token_without_a_price_has_no_usd_and_an_unlisted_one_no_decimals() -> None:
    priced = Token(OTHER_TOKEN, "WETH", 18, Feed("0x" + "fe" * 20, 8))
    chain = make_chain(tokens=(Token(USDC, "USDC", 6, "usd"), priced))
    assert amount(chain, USDC, 5_000_000, prices=NONE)["usd"] == "5.00"
    assert amount(chain, OTHER_TOKEN, 10**18, prices=NONE)["usd"] is None
    assert amount(chain, ZERO_ADDRESS, 1, prices=NONE) == {
        "raw": "1",
        "decimals": 18,
        "symbol": "ETH",
        "token": ZERO_ADDRESS,
        "usd": None,
    }
    assert amount(make_chain(), OTHER_TOKEN, 7, prices=NONE)["decimals"] is None
