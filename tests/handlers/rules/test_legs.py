from __future__ import annotations

from dataclasses import replace

from handlers import chain_events as ce
from handlers.chain_events import ChainEvent
from handlers.rules.legs import Legs, join
from tests.handlers.scripted import (
    ALICE,
    BOB,
    NOBODY,
    OTHER_TOKEN,
    SHOP,
    USDC,
    VAULT,
    WALLET,
    Script,
    deposit,
    divested,
    handed,
    invested,
    kept,
    locked,
    operation,
    spend,
    transfer,
    unlocked,
)


def joined(*events: ChainEvent) -> Legs:
    return join(Script().block(list(events)).events)


def test_transfer_that_moved_a_spend_is_its_leg() -> None:
    legs = joined(transfer(WALLET, SHOP, 5), spend(ALICE, "food", 5))
    assert (legs.of[1].log_index, legs.user_of) == (0, {0: ALICE})


def test_each_spend_of_a_batch_takes_its_own_leg() -> None:
    legs = joined(transfer(WALLET, SHOP, 5), spend(ALICE, "a", 5), transfer(WALLET, SHOP, 5), spend(ALICE, "b", 5))
    assert {event: leg.log_index for event, leg in legs.of.items()} == {1: 0, 3: 2}


def test_other_amount_token_wallet_or_recipient_is_no_leg() -> None:
    for stranger in (
        transfer(WALLET, SHOP, 6),
        transfer(WALLET, SHOP, 5, token=OTHER_TOKEN),
        transfer(BOB, SHOP, 5),
        transfer(WALLET, BOB, 5),
    ):
        assert joined(stranger, spend(ALICE, "food", 5)).of == {}


def test_leg_of_another_transaction_is_not_joined() -> None:
    block = Script().block([transfer(ALICE, WALLET, 5)], [deposit(ALICE, 5)])
    assert join(block.events).of == {}


def test_leg_may_come_after_its_event() -> None:
    assert joined(deposit(ALICE, 5), transfer(ALICE, WALLET, 5)).of[0].log_index == 1


# Investments --------------------------------------------------------------------------------------------------------


def test_vault_deposit_takes_the_payment_and_the_shares_that_are_made() -> None:
    legs = joined(*invested(ALICE, 50, 40))
    assert (legs.of[2].log_index, legs.user_of) == (0, {0: ALICE})
    assert (legs.shares_of, legs.joined) == (frozenset({1}), frozenset({2}))


def test_vault_withdrawal_takes_the_shares_that_are_burnt_and_what_is_paid() -> None:
    legs = joined(*divested(ALICE, 50, 40))
    assert (legs.of[2].log_index, legs.user_of) == (1, {1: ALICE})
    assert (legs.shares_of, legs.joined) == (frozenset({0}), frozenset({2}))


def test_payment_through_a_router_is_the_users_leg() -> None:
    _, made, said = invested(ALICE, 50, 40)
    assert isinstance(said, ce.VaultDeposit)
    legs = joined(transfer(ALICE, SHOP, 50), transfer(SHOP, VAULT, 50), made, replace(said, sender=SHOP))
    assert legs.user_of == {0: ALICE}


def test_deposit_that_somebody_else_paid_leaves_the_payers_transfer_alone() -> None:
    _, made, said = invested(ALICE, 50, 40)
    assert isinstance(said, ce.VaultDeposit)
    assert joined(transfer(BOB, VAULT, 50), made, replace(said, sender=BOB)).of == {}


def test_shares_of_another_number_owner_or_vault_are_not_the_deposits() -> None:
    pay, _, said = invested(ALICE, 50, 40)
    for stranger in (handed(NOBODY, ALICE, 41), handed(NOBODY, BOB, 40), handed(BOB, ALICE, 40)):
        assert joined(pay, stranger, said).shares_of == frozenset()
    assert joined(pay, handed(NOBODY, ALICE, 40, vault=WALLET), said).shares_of == frozenset()


def test_two_equal_deposits_take_a_pair_each() -> None:
    legs = joined(*invested(ALICE, 50, 40), *invested(ALICE, 50, 40))
    assert (legs.shares_of, legs.joined) == (frozenset({1, 4}), frozenset({2, 5}))
    assert legs.user_of == {0: ALICE, 3: ALICE}


def test_lock_takes_what_goes_in_and_what_comes_out() -> None:
    assert joined(*locked(ALICE, 1, 50)).user_of == {0: ALICE}
    assert joined(*unlocked(ALICE, 1, 60, fee=1)).user_of == {0: ALICE}
    assert joined(transfer(SHOP, ALICE, 60), unlocked(ALICE, 1, 60)[1]).of == {}


def test_operation_of_an_account_takes_its_payment() -> None:
    assert joined(transfer(ALICE, WALLET, 9), operation(ALICE, 0, 9)).user_of == {0: ALICE}
    assert joined(transfer(WALLET, ALICE, 9), operation(ALICE, 1, 9)).user_of == {0: ALICE}
    assert joined(transfer(WALLET, ALICE, 9), operation(ALICE, 2, 9)).of == {}


def test_fee_belongs_to_the_users_nearest_operation_in_its_token() -> None:
    legs = joined(operation(BOB, 0, 9), operation(ALICE, 0, 9), kept(ALICE, 1), kept(ALICE, 2), operation(ALICE, 1, 5))
    assert legs.fees == {1: (1, USDC), 4: (2, USDC)}
    assert joined(operation(ALICE, 0, 9), kept(ALICE, 1), kept(ALICE, 2)).fees == {0: (3, USDC)}
    other = joined(operation(ALICE, 0, 9), kept(ALICE, 1, token=OTHER_TOKEN))
    assert other.fees == {0: (1, OTHER_TOKEN)}
    assert joined(operation(ALICE, 0, 9), kept(BOB, 1)).fees == {}
