from __future__ import annotations

import base64

import pytest

from config.settings import Settings
from store.sealed import BrokenSeal, KeyRing, SealError, UnknownKey
from tests.factories import make_address

ANN, BOB = make_address("ann"), make_address("bob")


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


def ring(*names: str, number: int = 1) -> KeyRing:
    return KeyRing.of(Settings(seal_keys=[f"{name}:{key(number + at)}" for at, name in enumerate(names)]))


def test_a_text_comes_back_for_its_purpose_and_owner() -> None:
    sealed = ring("k1").seal("Miete für März ✓", purpose="memo", owner=ANN)
    assert ring("k1").unseal(sealed, purpose="memo", owner=ANN) == "Miete für März ✓"
    assert b"Miete" not in sealed
    assert sealed[:4] == b"\x01\x02k1"


def test_the_same_text_is_never_sealed_to_the_same_bytes() -> None:
    keys = ring("k1")
    assert len({keys.seal("", purpose="memo", owner=ANN) for _ in range(1000)}) == 1000


def test_the_first_key_seals_and_every_key_opens() -> None:
    old = ring("a", number=1).seal("x", purpose="email", owner=ANN)
    both = KeyRing.of(Settings(seal_keys=[f"b:{key(2)}", f"a:{key(1)}"]))
    assert both.unseal(old, purpose="email", owner=ANN) == "x"
    new = both.seal("x", purpose="email", owner=ANN)
    assert new.startswith(both.header)
    assert not old.startswith(both.header)


def test_another_purpose_or_owner_does_not_open() -> None:
    keys = ring("k1")
    sealed = keys.seal("ann@example.com", purpose="email", owner=ANN)
    with pytest.raises(BrokenSeal, match=f"A email of {BOB} does not open with key 'k1'"):
        keys.unseal(sealed, purpose="email", owner=BOB)
    with pytest.raises(BrokenSeal):
        keys.unseal(sealed, purpose="memo", owner=ANN)


def test_any_changed_byte_is_noticed() -> None:
    keys = ring("k1", "k2")
    sealed = keys.seal("x", purpose="memo", owner=ANN)
    for at in range(len(sealed)):
        with pytest.raises(SealError):
            keys.unseal(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], purpose="memo", owner=ANN)
    for end in range(len(sealed)):
        with pytest.raises(SealError):
            keys.unseal(sealed[:end], purpose="memo", owner=ANN)


def test_an_id_that_names_the_same_key_is_part_of_what_is_sealed() -> None:
    twins = KeyRing.of(Settings(seal_keys=[f"k1:{key(1)}", f"k2:{key(1)}"]))
    sealed = twins.seal("x", purpose="memo", owner=ANN)
    with pytest.raises(BrokenSeal):
        twins.unseal(sealed.replace(b"k1", b"k2", 1), purpose="memo", owner=ANN)


def test_a_key_that_left_the_settings_is_named() -> None:
    sealed = ring("k1").seal("secret words", purpose="memo", owner=ANN)
    with pytest.raises(UnknownKey, match="sealed by key 'k1', which EXPENDI_SEAL_KEYS does not list") as refused:
        ring("k2").unseal(sealed, purpose="memo", owner=ANN)
    assert "secret words" not in str(refused.value)


def test_without_a_key_nothing_is_sealed() -> None:
    with pytest.raises(SealError, match="EXPENDI_SEAL_KEYS is not set"):
        KeyRing.of(Settings()).seal("x", purpose="memo", owner=ANN)
