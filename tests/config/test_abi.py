"""Topics are what their signatures hash to, and every event belongs to somebody."""

from __future__ import annotations

import pytest
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from config import abi

SELECTORS = {
    "BALANCE_OF": "balanceOf(address)",
    "LATEST_ROUND_DATA": "latestRoundData()",
    "GET_ROUND_DATA": "getRoundData(uint80)",
    "PHASE_AGGREGATORS": "phaseAggregators(uint16)",
    "LATEST_ROUND": "latestRound()",
    "CONVERT_TO_ASSETS": "convertToAssets(uint256)",
    "GET_ACCRUED_YIELD": "getAccruedYield(uint256)",
}
CONSTANTS = {
    name: value
    for name, value in vars(abi).items()
    if name.isupper() and isinstance(value, str) and name not in SELECTORS
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_topic_is_the_hash_of_its_signature(name: str) -> None:
    signature = abi.SIGNATURES[CONSTANTS[name]]

    assert CONSTANTS[name] == "0x" + keccak(text=signature).hex()
    assert signature.partition("(")[0].lower() == name.replace("_", "").lower()


def test_every_signature_has_its_constant() -> None:
    assert set(abi.SIGNATURES) == set(CONSTANTS.values())


def test_planned_topics_begin_as_announced() -> None:
    assert abi.ACCOUNT_OPERATION.startswith("0xf894688d")
    assert abi.FEE_COLLECTION.startswith("0x31276350")


def test_each_event_is_believed_from_one_kind_of_contract() -> None:
    groups = [*abi.FACTORY_TOPICS, *abi.WALLET_TOPICS, *abi.NOTICE_TOPICS, *abi.LOCK_TOPICS, *abi.VAULT_TOPICS]
    groups += [abi.USER_OPERATION_EVENT]

    assert sorted(groups) == sorted(abi.SIGNATURES)


@pytest.mark.parametrize("name", SELECTORS)
def test_selector_is_the_hash_of_its_signature(name: str) -> None:
    assert "0x" + keccak(text=SELECTORS[name])[:4].hex() == getattr(abi, name)


@pytest.mark.parametrize(
    "address",
    [
        "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789",
        "0x0000000071727De22E5E9d8BAf0edAc6f37da032",
        "0x4337084D9E255Ff0702461CF8895CE9E3b5Ff108",
    ],
)
def test_entry_points_are_the_announced_ones(address: str) -> None:
    assert to_checksum_address(address) == address
    assert address.lower() in abi.ENTRY_POINTS
