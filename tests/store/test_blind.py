from __future__ import annotations

from store.blind import Blinds
from tests.conftest import MakeSettings

ALICE, BOB = "0x" + "a1" * 20, "0x" + "b0" * 20
KEYS = ("new:" + "B" * 43 + "=", "old:" + "A" * 43 + "=")


def test_a_hash_is_its_users_and_its_keys_own(make_settings: MakeSettings) -> None:
    blinds = Blinds.of(make_settings(seal_keys=KEYS))
    new, old = blinds.of_user(ALICE)
    assert (new.key_id, old.key_id) == ("new", "old")
    assert new.number("ren") == blinds.of_user(ALICE)[0].number("ren")
    numbers = [new.number("ren"), old.number("ren"), blinds.of_user(BOB)[0].number("ren"), new.number("rent")]
    assert len(set(numbers)) == 4
    assert all(-(2**63) <= number < 2**63 for number in numbers)


def test_without_a_seal_key_the_secret_makes_one(make_settings: MakeSettings) -> None:
    one, other = (Blinds.of(make_settings(secret_key=letter * 32)).of_user(ALICE) for letter in "ab")
    assert one[0].key_id == other[0].key_id == "-"
    assert one[0].number("ren") != other[0].number("ren")
