from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.chains import Feed, Token
from handlers.chain_events import ChainEvent, DecodedBlock, Fee
from handlers.rules.prices import EXACT, NONE, Prices, Share, needed, rounded
from store.prices import PriceRow
from store.records import ZERO_ADDRESS
from tests.handlers.scripted import (
    ALICE,
    BOB,
    CAROL,
    OTHER_TOKEN,
    USDC,
    WALLET,
    Script,
    deposit,
    make_chain,
    spend,
    transfer,
)

UINT256 = 2**256 - 1
VAULT = "0x" + "4a" * 20
FINE = "0x" + "f1" * 20
CHAIN = make_chain(
    tokens=(
        Token(USDC, "USDC", 6, "usd"),
        Token(FINE, "FINE", 27, "usd"),
        Token(OTHER_TOKEN, "WETH", 18, Feed("0x" + "fe" * 20, 8)),
        Token(VAULT, "vUSDC", 18),
    )
)
WETH = (CHAIN.id, OTHER_TOKEN)


@pytest.mark.parametrize(
    ("price", "raw", "usd"),
    [
        ("3123.45678901", 10**18, "3123.45678901"),
        ("3123.45678901", 1, "0.000000000000003123"),
        ("0.00000001", 1, "0"),
        ("1.5", -(10**18), "-1.5"),
        ("2.5", 10**36 + 1, "2500000000000000000.000000000000000002"),  # half to even
        ("2", UINT256, "231584178474632390847141970017375815706539969331281128078915.168015826259279870"),
    ],
)
def test_feed_values_an_amount_at_eighteen_places(price: str, raw: int, usd: str) -> None:
    assert Prices({WETH: Decimal(price)}).usd(CHAIN, OTHER_TOKEN, raw) == Decimal(usd)


def test_largest_amount_at_the_largest_answer_is_exact() -> None:
    answer = 2**255 - 1
    with localcontext(prec=5):
        found = Prices({WETH: Decimal(answer).scaleb(-8, EXACT)}).usd(CHAIN, OTHER_TOKEN, UINT256)
    assert found is not None
    product = UINT256 * answer  # 26 places, of which eight are rounded away, half to even
    whole, rest = divmod(product, 10**8)
    whole += rest > 10**8 // 2
    assert int(found.scaleb(18, EXACT)) == whole


@given(st.integers(-UINT256, UINT256))
def test_what_counts_as_a_dollar_is_never_rounded(raw: int) -> None:
    with localcontext(prec=5):  # whatever the caller's own context is
        six, fine = NONE.usd(CHAIN, USDC, raw), NONE.usd(CHAIN, FINE, raw)
    assert six is not None
    assert fine is not None
    with localcontext(prec=200):
        assert six * 10**6 == fine * 10**27 == Decimal(raw)


@pytest.mark.parametrize("token", [OTHER_TOKEN, VAULT, ZERO_ADDRESS, "0x" + "99" * 20])
def test_no_price_is_no_value(token: str) -> None:
    assert NONE.usd(CHAIN, token, 10**18) is None


def test_failed_feed_and_price_of_another_chain_are_no_value() -> None:
    elsewhere = Prices({(CHAIN.id + 1, OTHER_TOKEN): Decimal(7), WETH: None})
    assert elsewhere.usd(CHAIN, OTHER_TOKEN, 10**18) is None


def test_price_left_over_for_a_token_without_a_feed_counts_for_nothing() -> None:
    assert Prices({(CHAIN.id, VAULT): Decimal(7)}).usd(CHAIN, VAULT, 10**18) is None


def test_share_is_worth_its_asset_rounded_down_as_the_vault_does() -> None:
    shares = {(CHAIN.id, VAULT): Share(USDC, assets=1_050_001, shares=10**18)}
    prices = NONE.with_shares(shares)
    assert prices.usd(CHAIN, VAULT, 10**18) == Decimal("1.050001")
    assert prices.usd(CHAIN, VAULT, 10**18 - 1) == Decimal("1.05")
    weth = NONE.with_shares({(CHAIN.id, VAULT): Share(OTHER_TOKEN, assets=1, shares=1)})
    assert weth.usd(CHAIN, VAULT, 10**18) is None
    assert weth.at_block(CHAIN.id, (PriceRow(OTHER_TOKEN, Decimal(3)),)).usd(CHAIN, VAULT, 10**18) == Decimal(3)
    assert NONE.with_shares({(CHAIN.id, VAULT): Share(USDC, assets=0, shares=0)}).usd(CHAIN, VAULT, 1) is None


def test_what_is_read_at_a_block_takes_the_place_of_what_was_known_also_when_it_failed() -> None:
    known = Prices({WETH: Decimal(5), (1, USDC): Decimal(9)})
    row = PriceRow(OTHER_TOKEN, None)
    now = known.at_block(CHAIN.id, (row,))
    assert now.usd(CHAIN, OTHER_TOKEN, 10**18) is None
    assert (now.known[1, USDC], now.read, known.known[WETH]) == (Decimal(9), (row,), Decimal(5))


@pytest.mark.parametrize(("text", "kept"), [("1.5", "1.5"), ("0." + "1" * 19, "0." + "1" * 18), ("1E+3", "1E+3")])
def test_rounding_leaves_alone_what_has_no_more_places(text: str, kept: str) -> None:
    assert str(rounded(Decimal(text))) == kept


def block(*events: ChainEvent, payer: str = ALICE) -> DecodedBlock:
    made = Script().block(events)
    return replace(made, fees={made.events[0].tx_hash: Fee(payer, 1)})


@pytest.mark.parametrize(
    ("made", "registered", "tokens"),
    [
        (block(deposit(ALICE, 1, token=OTHER_TOKEN), payer=BOB), (), {OTHER_TOKEN}),
        (block(deposit(ALICE, 1)), (), {ZERO_ADDRESS}),  # the fee
        (block(deposit(ALICE, 1), payer=BOB), (), set()),  # somebody else's fee
        (block(spend(ALICE, "food", 1, spender=BOB), payer=BOB), (), {ZERO_ADDRESS}),
        (block(transfer(BOB, CAROL, 1, token=OTHER_TOKEN), payer=BOB), (), set()),  # strangers
        (block(transfer(BOB, CAROL, 1, token=OTHER_TOKEN), payer=BOB), (CAROL,), {OTHER_TOKEN, ZERO_ADDRESS}),
        (block(transfer(BOB, CAROL, 1), payer=CAROL), (CAROL,), {ZERO_ADDRESS}),
        (block(transfer(CAROL, WALLET, 1, token=OTHER_TOKEN), payer=BOB), (ALICE,), {OTHER_TOKEN}),  # stranded
        (
            block(transfer(BOB, CAROL, 1, token=OTHER_TOKEN), deposit(ALICE, 1, token=OTHER_TOKEN)),
            (),
            {OTHER_TOKEN, ZERO_ADDRESS},
        ),
    ],
)
def test_block_needs_the_feeds_of_what_its_users_move_and_pay(
    made: DecodedBlock, registered: tuple[str, ...], tokens: set[str]
) -> None:
    eth = Token(ZERO_ADDRESS, "ETH", 18, Feed("0x" + "ee" * 20, 8))
    wanted = needed(replace(CHAIN, tokens=(*CHAIN.tokens, eth)), made, {WALLET: ALICE})
    assert wanted.tokens(registered) == tokens


def test_chain_without_feeds_needs_nothing() -> None:
    assert needed(make_chain(), block(deposit(ALICE, 1, token=OTHER_TOKEN)), {}).tokens([ALICE]) == frozenset()
