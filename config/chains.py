"""The chain table: which chains are followed, from which block, and which contracts and tokens on them are ours.

A chain is a row of a TOML file; nothing else in the product names a chain. `config/chains.toml` ships the known rows.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictInt,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
)

SHIPPED = Path(__file__).with_name("chains.toml")
"""The table of the chains that Expendi's contracts are deployed on."""


class ChainTableError(Exception):
    """A chain table can't be used; the message names the file, the row and the key."""


def _url_of(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"should be a url that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        _ = parts.port  # a port that is no number raises here, where row and key are known
        return value

    return AfterValidator(check)


# Any case is accepted: explorers show checksummed addresses. Stored lower-case, so that one address is one key.
_Address = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{40}$", to_lower=True)]
_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
_Count = Annotated[StrictInt, Field(ge=0)]
_Decimals = Annotated[StrictInt, Field(ge=0, le=77)]  # uint256 holds 78 digits
_Url = Annotated[str, _url_of("http", "https")]
_WebsocketUrl = Annotated[str, _url_of("ws", "wss")]
_STRICT_KEYS = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Feed:
    """A Chainlink aggregator that prices a token in USD."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT_KEYS

    feed: _Address
    decimals: _Decimals = 8
    """Decimals of the aggregator's answer; Chainlink's USD feeds have 8."""
    heartbeat_s: Annotated[StrictInt, Field(ge=1)] = 90_000
    """Age (s) from which an answer is stale and counts for nothing. Default: the usual day and an hour of grace."""


_Price = Annotated[
    Annotated[Literal["usd"], Tag("<usd>")] | Annotated[Feed, Tag("<feed>")],
    Discriminator(lambda value: "<feed>" if isinstance(value, (dict, Feed)) else "<usd>"),
]


@dataclass(frozen=True, slots=True)
class Token:
    """A token that takes part in balances; `0x000…0` is the chain's own coin."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT_KEYS

    address: _Address
    symbol: _Name
    decimals: _Decimals
    price: _Price | None = None
    """`usd`: counts as 1; a feed: read at the block; None: no USD value, and totals say so."""


@dataclass(frozen=True, slots=True)
class Vault:
    """An ERC-4626 vault whose shares are a position."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT_KEYS

    address: _Address
    protocol: _Name
    """Who runs it, as people know it: `Morpho`."""
    asset: _Address
    """The token that goes in and comes out."""
    name: _Name
    decimals: _Decimals = 18
    """Decimals of a share, as the vault's `decimals()` says."""
    risk: Literal["low", "medium", "high"] = "medium"
    """Class of the protocol: low has years of large deposits behind it, high is young, levered or thin."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain and what of it is ours. Addresses are lower-case."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT_KEYS

    name: _Name
    id: Annotated[StrictInt, Field(ge=1)]
    rpc: Annotated[tuple[_Url, ...], Field(min_length=1)] = field(repr=False)
    """JSON-RPC over HTTP, tried in this order. Not shown in a repr: providers put keys into urls."""
    ws: _WebsocketUrl | None = field(default=None, repr=False)
    """Websocket for new heads; without one the chain is polled."""
    first_block: _Count = 0
    """Block at which following begins: the deployment of the first contract."""
    confirmations: _Count = 3
    """Blocks on top of a transaction's block until it is shown as confirmed. 3 outlives the usual one-block reorg."""
    finality_depth: _Count = 64
    """Blocks after which a reorg is not believed and the watcher stops loudly. 64 is two epochs of Ethereum."""
    lag_blocks: Annotated[StrictInt, Field(ge=1)] = 5
    """Blocks that one of several nodes may be behind the others before they are asked instead. 5 outlives a slow block
    at a load balancer; more for chains of several blocks a second."""
    wallets: tuple[_Address, ...] = ()
    """Wallet contracts that serve many users and come from no factory."""
    factories: tuple[_Address, ...] = ()
    """Contracts whose WalletCreated and WalletRegistered name further wallets."""
    yield_locks: tuple[_Address, ...] = ()
    """Yield time lock contracts."""
    tokens: Annotated[tuple[Token, ...], Field(validation_alias="token")] = ()
    vaults: Annotated[tuple[Vault, ...], Field(validation_alias="vault")] = ()
    _by_address: Mapping[str, Token] = field(init=False, repr=False, compare=False)
    _feeds: Mapping[str, Feed] = field(init=False, repr=False, compare=False)
    _vaults: Mapping[str, Vault] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself within one row."""
        if self.finality_depth < self.confirmations:
            raise ValueError(f"finality_depth {self.finality_depth} is below confirmations {self.confirmations}")
        _refuse_twice("token", (token.address for token in self.tokens))
        _refuse_twice("vault", (vault.address for vault in self.vaults))
        object.__setattr__(self, "_by_address", {token.address: token for token in self.tokens})
        feeds = {token.address: token.price for token in self.tokens if isinstance(token.price, Feed)}
        object.__setattr__(self, "_feeds", feeds)
        object.__setattr__(self, "_vaults", {vault.address: vault for vault in self.vaults})
        for vault in self.vaults:
            if vault.address in self._by_address:
                raise ValueError(f"vault {vault.address} is listed as a token too: its shares are a position")
            if vault.asset not in self._by_address:
                raise ValueError(f"vault {vault.address} holds {vault.asset}, which is not a listed token")

    def token(self, address: str) -> Token | None:
        """The listed token at a lower-case address."""
        return self._by_address.get(address)

    def vault(self, address: str) -> Vault | None:
        """The listed vault at a lower-case address."""
        return self._vaults.get(address)

    @property
    def feeds(self) -> Mapping[str, Feed]:
        """Aggregators by the address of the token that they price."""
        return self._feeds

    @property
    def usd_token(self) -> Token | None:
        """The first token that counts as one dollar; its decimals are those of the contracts' counters."""
        return next((token for token in self.tokens if token.price == "usd"), None)


def _refuse_twice(what: str, values: Iterable[object]) -> None:
    twice = [str(value) for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{what} {twice[0]} is listed twice")


@dataclass(frozen=True, slots=True)
class _Table:
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT_KEYS

    chains: Annotated[tuple[Chain, ...], Field(validation_alias="chain", min_length=1)]

    def __post_init__(self) -> None:
        _refuse_twice("chain id", (chain.id for chain in self.chains))
        _refuse_twice("chain name", (chain.name for chain in self.chains))


_TABLE = TypeAdapter(_Table)


def load_chains(path: Path) -> Mapping[int, Chain]:
    """Read a chain table, by chain id in the order of the file; raise ChainTableError on anything wrong in it."""
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ChainTableError(
            f"{path}: there is no such chain table; EXPENDI_CHAINS_FILE names one, or `expendi up` makes the devnet's."
        ) from error
    except OSError as error:
        raise ChainTableError(f"{path}: can't be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ChainTableError(f"{path}: is not TOML: {error}.") from error
    try:
        table = _TABLE.validate_python(rows)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ChainTableError(f"{path}: {_place(first['loc'], rows)}{_cause(first['type'], first['msg'])}.") from None
    return MappingProxyType({chain.id: chain for chain in table.chains})


def _place(loc: Sequence[str | int], rows: Mapping[str, Any]) -> str:
    """Name the row and key of an error: `row 2 of [[chain]] (Base Sepolia), key rpc: `."""
    words: list[str] = []
    tables: list[str] = []
    keys: list[str] = []
    here: Any = rows
    for step in (step for step in loc if not str(step).startswith("<")):  # <…> is a branch of a union, no key
        if isinstance(step, str):
            keys.append(step)
            here = here.get(step) if isinstance(here, dict) else None
        elif isinstance(here := here[step], dict):
            tables.append(keys.pop())
            named = [here[key] for key in ("name", "symbol", "address") if isinstance(here.get(key), str)]
            words.append(f"row {step + 1} of [[{'.'.join(tables)}]]" + "".join(f" ({name})" for name in named[:1]))
    if keys:
        words.append(f"key {'.'.join(keys)}")
    return ", ".join(words) + (": " if words else "")


def _cause(kind: str, message: str) -> str:
    """Say a pydantic error in the words of a TOML file."""
    words = {
        "unexpected_keyword_argument": "there is no such key",
        "missing": "is missing",
        "string_pattern_mismatch": "should be an address, 0x and 40 hex digits",
        "literal_error": 'should be "usd" or a table {feed, decimals}' if "'usd'" in message else "",
        "too_short": "should name at least one",
        "tuple_type": "should be a list",
        "dataclass_type": "should be a table",
    }
    return words.get(kind) or message.removeprefix("Value error, ").replace("Input should", "should")
