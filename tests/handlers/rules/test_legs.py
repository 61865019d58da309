from __future__ import annotations

from handlers.chain_events import ChainEvent
from handlers.rules.legs import Legs, join
from tests.handlers.scripted import ALICE, BOB, OTHER_TOKEN, SHOP, WALLET, Script, deposit, spend, transfer


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
