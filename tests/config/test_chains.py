"""The chain table: what a row may say, and how a wrong row is named."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from config.chains import SHIPPED, Chain, ChainTableError, Feed, Token, Vault, load_chains

MIXED = "0x" + "Ab" * 20
LOWER = MIXED.lower()
OTHER = "0x" + "cd" * 20
VAULT = "0x" + "ef" * 20
ROW = '[[chain]]\nname = "One"\nid = 1\nrpc = ["http://one"]\n'
SHARES = '[[chain.vault]]\naddress = "{vault}"\nprotocol = "P"\nasset = "{asset}"\nname = "V"\n'
TOKEN = f'[[chain.token]]\naddress = "{MIXED}"\nsymbol = "USDC"\ndecimals = 6\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "chains.toml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> str:
    path = write(folder, text)
    with pytest.raises(ChainTableError) as refused:
        load_chains(path)
    sentence = str(refused.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")


def test_a_full_row_is_read_and_addresses_become_lower_case(tmp_path: Path) -> None:
    text = (
        ROW
        + f'ws = "ws://one"\nfirst_block = 7\nconfirmations = 2\nfinality_depth = 20\nwallets = ["{MIXED}"]\n'
        + f'factories = ["{MIXED}"]\nyield_locks = ["{MIXED}"]\n'
        + TOKEN
        + 'price = "usd"\n'
        + f'[[chain.token]]\naddress = "{OTHER}"\nsymbol = "ETH"\ndecimals = 18\nprice = {{feed = "{MIXED}"}}\n'
        + f'[[chain.vault]]\naddress = "{VAULT}"\nprotocol = "Morpho"\nasset = "{MIXED}"\nname = "Steady USDC"\n'
        + 'decimals = 6\nrisk = "low"\n'
    )
    chain = load_chains(write(tmp_path, text))[1]
    assert (chain.name, chain.rpc, chain.ws) == ("One", ("http://one",), "ws://one")
    assert (chain.first_block, chain.confirmations, chain.finality_depth) == (7, 2, 20)
    assert chain.wallets == chain.factories == chain.yield_locks == (LOWER,)
    assert chain.token(LOWER) == Token(LOWER, "USDC", 6, "usd")
    assert chain.token(OTHER) == Token(OTHER, "ETH", 18, Feed(LOWER, 8))
    assert chain.token("0x" + "00" * 20) is None
    assert chain.usd_token == chain.token(LOWER)
    assert chain.vault(VAULT) == Vault(VAULT, "Morpho", LOWER, "Steady USDC", 6, "low")


def test_a_short_row_gets_defaults(tmp_path: Path) -> None:
    chain = load_chains(write(tmp_path, ROW))[1]
    assert (chain.ws, chain.first_block, chain.confirmations, chain.finality_depth) == (None, 0, 3, 64)
    assert not any((chain.wallets, chain.factories, chain.yield_locks, chain.tokens, chain.vaults))
    assert chain.usd_token is None


def test_the_table_and_its_rows_are_frozen(tmp_path: Path) -> None:
    table = load_chains(write(tmp_path, ROW))
    with pytest.raises(TypeError):
        table[2] = table[1]  # type: ignore[index]  # the refusal is what is tested
    with pytest.raises(FrozenInstanceError):
        table[1].name = "Two"  # type: ignore[misc]  # the refusal is what is tested


def test_a_row_can_be_made_in_code_and_is_checked_too() -> None:
    usd = Token(LOWER, "USDC", 6, "usd")
    assert Chain("One", 1, ("http://one",), tokens=(usd,)).token(LOWER) is usd
    with pytest.raises(ValueError, match="below confirmations"):
        Chain("One", 1, ("http://one",), confirmations=3, finality_depth=2)


def test_urls_with_keys_are_not_shown() -> None:
    assert "hunter2" not in repr(Chain("One", 1, ("http://one/hunter2",), ws="ws://one/hunter2"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "key chain: is missing."),
        ("chain = []", "key chain: should name at least one."),
        ("chain = 1", "key chain: should be a list."),
        ("chain =", "is not TOML: "),
        ("speed = 1\n" + ROW, "key speed: there is no such key."),
        (ROW + "speed = 1", "row 1 of [[chain]] (One), key speed: there is no such key."),
        (ROW + "tokens = []", "row 1 of [[chain]] (One), key tokens: there is no such key."),
        (ROW.replace("id = 1", ""), "row 1 of [[chain]] (One), key id: is missing."),
        (ROW.replace("id = 1", "id = 0"), "row 1 of [[chain]] (One), key id: should be greater than or equal to 1."),
        (ROW.replace("id = 1", 'id = "1"'), "row 1 of [[chain]] (One), key id: should be a valid integer."),
        (ROW.replace("id = 1", "id = true"), "row 1 of [[chain]] (One), key id: should be a valid integer."),
        (ROW.replace('"http://one"', ""), "row 1 of [[chain]] (One), key rpc: should name at least one."),
        (ROW.replace("http:", "ftp:"), "row 1 of [[chain]] (One), key rpc: should be a url that begins with http"),
        (ROW.replace("http://one", "http://one:x"), "row 1 of [[chain]] (One), key rpc: Port could not be cast"),
        (ROW + 'ws = "http://one"', "row 1 of [[chain]] (One), key ws: should be a url that begins with ws://"),
        (ROW + "first_block = -1", "row 1 of [[chain]] (One), key first_block: should be greater than or equal to 0."),
        (ROW + "confirmations = 65", "row 1 of [[chain]] (One): finality_depth 64 is below confirmations 65."),
        (ROW + 'wallets = ["0x12"]', "row 1 of [[chain]] (One), key wallets: should be an address"),
        (ROW + 'factories = "0x12"', "row 1 of [[chain]] (One), key factories: should be a list."),
        (ROW + ROW, "chain id 1 is listed twice."),
        (ROW + ROW.replace("id = 1", "id = 2"), "chain name One is listed twice."),
        (
            ROW + ROW.replace("1", "2") + TOKEN.replace(MIXED, "x"),
            "row 2 of [[chain]] (One), row 1 of [[chain.token]] (USDC), key address: should be an address",
        ),
        (ROW + TOKEN + TOKEN.replace(MIXED, LOWER), f"row 1 of [[chain]] (One): token {LOWER} is listed twice."),
        (
            ROW + TOKEN + 'price = "eur"',
            'row 1 of [[chain]] (One), row 1 of [[chain.token]] (USDC), key price: should be "usd" or a table',
        ),
        (
            ROW + TOKEN + f'price = {{feed = "{MIXED}", decimals = -1}}',
            "row 1 of [[chain]] (One), row 1 of [[chain.token]] (USDC), key price.decimals: should be greater",
        ),
        (
            ROW + TOKEN.replace("6", "78"),
            "row 1 of [[chain]] (One), row 1 of [[chain.token]] (USDC), key decimals: should be less than",
        ),
        (
            ROW + f'[[chain.vault]]\naddress = "{MIXED}"',
            f"row 1 of [[chain]] (One), row 1 of [[chain.vault]] ({MIXED}), key protocol: is missing.",
        ),
        (
            ROW + SHARES.format(vault=VAULT, asset=MIXED),
            f"row 1 of [[chain]] (One): vault {VAULT} holds {LOWER}, which is not a listed token.",
        ),
        (
            ROW + TOKEN + SHARES.format(vault=MIXED, asset=MIXED),
            f"row 1 of [[chain]] (One): vault {LOWER} is listed as a token too: its shares are a position.",
        ),
        (
            ROW + TOKEN + SHARES.format(vault=VAULT, asset=MIXED) + 'risk = "none"',
            "row 1 of [[chain]] (One), row 1 of [[chain.vault]] (V), key risk: should be 'low', 'medium' or 'high'.",
        ),
    ],
)
def test_a_wrong_table_is_refused_with_row_and_key(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, text).startswith(sentence)


def test_a_missing_table_says_where_tables_come_from(tmp_path: Path) -> None:
    with pytest.raises(ChainTableError, match="EXPENDI_CHAINS_FILE names one"):
        load_chains(tmp_path / "none.toml")
    with pytest.raises(ChainTableError, match="can't be read"):
        load_chains(tmp_path)


def test_the_shipped_table_holds_the_deployments() -> None:
    table = load_chains(SHIPPED)
    assert list(table) == [8453, 42220, 534352, 84532, 137, 42161]
    base = table[8453]
    assert base.first_block == 33019161
    assert base.factories == ("0x82ea29c17ee7ee9176ceb37f728ab1967c4993a5",)
    assert base.wallets == ("0x4b80e374ff1639b748976a7bf519e2a35b43ca26",)
    for chain in table.values():
        assert chain.usd_token is not None
        assert (chain.usd_token.symbol, chain.usd_token.decimals) == ("USDC", 6)
        assert all(url.startswith("https://") for url in chain.rpc)
    assert [chain.name for chain in table.values() if not chain.factories] == ["Polygon", "Arbitrum"]
