"""Rows as the resources of CONTRACT: the same object in an event, a snapshot and a REST answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from config.chains import Chain, Vault
from handlers.rules.accounts import account_id
from handlers.rules.members import MAX_MEMBERS, first_tokens
from handlers.rules.money import amount, token_facts, valued
from handlers.rules.periods import iso, period_end
from handlers.rules.prices import EXACT, Prices, rounded
from handlers.rules.risk import protocol_class
from store.accounts import AccountRow
from store.records import ZERO_ADDRESS, BalanceKey, BucketRow, Role, TransactionRow
from store.yields import Position

DAY_S = 86_400
RATIO_STEP = Decimal("0.000001")

Status = Literal["included", "confirmed", "finalized", "reverted"]


@dataclass(frozen=True, slots=True)
class Heights:
    """How far a chain is: a transaction's status follows from its block number and these."""

    head: int
    confirmed: int
    finalized: int


def status(block_number: int, heights: Heights) -> Status:
    """How final a canonical transaction is; never stored per row."""
    if block_number <= heights.finalized:
        return "finalized"
    return "confirmed" if block_number <= heights.confirmed else "included"


def transaction(
    row: TransactionRow,
    chain: Chain,
    *,
    status: Status,
    category: Mapping[str, object] | None = None,
    memo: str | None = None,
) -> dict[str, object]:
    """A ledger row as `transaction`. For a delegate it shows neither category nor memo."""
    return {
        "id": row.id,
        "chainId": row.chain_id,
        "txHash": row.tx_hash,
        "logIndex": row.log_index,
        "blockNumber": row.block_number,
        "blockHash": row.block_hash,
        "blockTime": iso(row.block_time),
        "status": status if row.canonical else "reverted",
        "type": row.type,
        "accountType": row.account_type,
        "amount": _amount(row),
        "direction": row.direction,
        "counterparty": row.counterparty,
        "spender": row.spender,
        "role": row.role,
        "wallet": row.wallet,
        "bucket": row.bucket,
        "bucketId": row.bucket_id,
        "toBucket": row.to_bucket,
        "toBucketId": row.to_bucket_id,
        "category": category,
        "identifier": row.identifier,
        "accountFee": _account_fee(row, chain),
        "fee": None if row.fee_wei is None else _fee(row, row.fee_wei, chain),
        "memo": memo,
    }


def _amount(row: TransactionRow) -> dict[str, object]:
    # The value is the one at the block, kept on the row: prices and table may have changed since.
    return valued(row.amount, row.decimals, symbol=row.symbol, token=row.token, usd=row.usd)


def _fee(row: TransactionRow, wei: int, chain: Chain) -> dict[str, object]:
    symbol, decimals = token_facts(chain, ZERO_ADDRESS)
    return valued(wei, decimals, symbol=symbol, token=ZERO_ADDRESS, usd=row.fee_usd)


def _account_fee(row: TransactionRow, chain: Chain) -> dict[str, object] | None:
    """What the contract kept; in the row's own token it is worth as much a unit as the row's amount."""
    if row.account_fee is None or row.account_fee_token is None:
        return None
    symbol, decimals = token_facts(chain, row.account_fee_token)
    usd = None
    if row.usd is not None and row.account_fee_token == row.token and row.amount:
        usd = rounded(EXACT.divide(EXACT.multiply(row.usd, Decimal(row.account_fee)), Decimal(row.amount)))
    return valued(row.account_fee, decimals, symbol=symbol, token=row.account_fee_token, usd=usd)


def balance(key: BalanceKey, raw: int, *, chain: Chain, bucket: str | None, prices: Prices) -> dict[str, object]:
    """One entry of `balances` and `updatedBalances`; `bucket` is the shown name of the key's bucket."""
    return {
        "chainId": key.chain_id,
        "scope": key.scope,
        "wallet": key.wallet or None,
        "bucket": bucket,
        "bucketId": key.bucket_id or None,
        "amount": amount(chain, key.token, raw, prices=prices),
    }


def bucket(
    row: BucketRow,
    balances: Iterable[tuple[str, int]],
    *,
    chain: Chain,
    prices: Prices,
    role: Role = "owner",
    members: Sequence[Mapping[str, object]] = (),
) -> dict[str, object]:
    """A bucket resource as its owner or a delegate sees it.

    `balances` are (token, raw amount), zeros left out, in token order; `members` as handlers.rules.members says them.
    """
    end = period_end(row.period_start)
    held = {token: raw for token, raw in balances if raw != 0}
    tokens = sorted(held) if role == "owner" else first_tokens(held, chain)
    return {
        "id": row.bucket_id,
        "chainId": row.chain_id,
        "wallet": row.wallet,
        "owner": row.user,
        "role": role,
        "name": row.name,
        "active": row.active,
        "monthlyLimit": str(row.monthly_limit),
        "spent": str(row.spent),
        "periodStart": iso(row.period_start) if row.period_start else None,
        "periodEnd": iso(end) if end else None,
        "balances": [amount(chain, token, held[token], prices=prices) for token in tokens],
        "delegates": sorted(row.delegates if role == "owner" else row.delegates[:MAX_MEMBERS]),
        "members": list(members),
    }


def position(row: Position, *, chain: Chain, prices: Prices) -> dict[str, object]:
    """A position resource, as the row tells it; one with nothing in it is closed."""
    vault = chain.vault(row.contract if row.kind == "vault" else row.vault or "")

    def assets(raw: int | None) -> dict[str, object] | None:
        return None if raw is None else amount(chain, row.asset, raw, prices=prices)

    return {
        "positionId": row.position_id,
        "chainId": row.chain_id,
        "kind": row.kind,
        "protocol": row.protocol,
        "asset": row.symbol or row.asset,
        "value": assets(row.value),
        "principal": assets(row.principal),
        "yield": assets(row.earned),
        "apy": None if row.apy is None else ratio(row.apy),
        "windowDays": None if row.apy_window_s is None else ratio(Decimal(row.apy_window_s) / DAY_S),
        "asOfBlock": row.as_of_block,
        "shares": _shares(row, vault),
        "entryPrice": _entry_price(row, vault, chain),
        "fees": amount(chain, row.asset, row.fees, prices=prices),
        "riskLevel": protocol_class(row, chain),
        "unlockAt": iso(row.unlock_at) if row.unlock_at else None,
        "label": row.label,
        "lastUpdatedAt": iso(row.as_of),
    }


def without(shown: Mapping[str, object]) -> dict[str, object]:
    """A position as it was told, with nothing in it: it is no more."""

    def nothing(amount: object) -> object:
        if not isinstance(amount, Mapping):
            return None
        return {**amount, "raw": "0", "usd": None if amount["usd"] is None else "0.00"}

    zeros = {key: nothing(shown[key]) for key in ("value", "principal", "yield", "shares", "fees")}
    if zeros["principal"] is None:
        zeros["principal"] = nothing({**shown["fees"], "usd": None}) if isinstance(shown["fees"], Mapping) else None
    return {**shown, **zeros, "apy": None, "windowDays": None, "entryPrice": None}


def ratio(value: Decimal) -> str:
    """A ratio with at most six places, without an exponent or zeros at its end."""
    text = f"{value.quantize(RATIO_STEP, context=EXACT):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _shares(row: Position, vault: Vault | None) -> dict[str, object] | None:
    if row.kind == "account":
        return None
    token = row.contract if row.kind == "vault" else row.vault or row.contract
    name, decimals = (vault.name, vault.decimals) if vault else (None, None)
    return valued(row.shares, decimals, symbol=name, token=token, usd=None)


def _entry_price(row: Position, vault: Vault | None, chain: Chain) -> str | None:
    """Assets per share that went in, over what is left; None where shares or assets have no known decimals."""
    _, decimals = token_facts(chain, row.asset)
    if vault is None or decimals is None or not row.shares or row.principal is None:
        return None
    price = EXACT.divide(Decimal(row.principal), Decimal(row.shares)).scaleb(vault.decimals - decimals, context=EXACT)
    text = f"{rounded(price):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def account(row: AccountRow, held: Iterable[tuple[str, int]], *, chain: Chain, prices: Prices) -> dict[str, object]:
    """An account resource; `held` are (token, raw amount), zeros left out, in token order."""
    return {
        "id": account_id(row.user, row.chain_id, row.type),
        "chainId": row.chain_id,
        "accountType": row.type,
        "accountName": row.name,
        "isActive": row.active,
        "balances": [amount(chain, token, raw, prices=prices) for token, raw in sorted(held) if raw != 0],
    }


def snapshot(
    *,
    seq: int,
    buckets: Sequence[Mapping[str, object]],
    balances: Mapping[BalanceKey, int],
    chains: Mapping[int, Chain],
    prices: Prices,
    budgets: Sequence[Mapping[str, object]] = (),
    goals: Sequence[Mapping[str, object]] = (),
    positions: Iterable[Position] = (),
    achievements: Sequence[Mapping[str, object]] = (),
    unread: int = 0,
) -> dict[str, object]:
    """Everything a client shows, as of log position `seq`, at the newest `prices`.

    Rows of chains that left the table are left out.
    """
    names = {str(each["id"]): str(each["name"]) for each in buckets}
    shown = sorted((key, raw) for key, raw in balances.items() if raw != 0 and key.chain_id in chains)
    return {
        "seq": seq,
        "balances": [
            balance(key, raw, chain=chains[key.chain_id], bucket=names.get(key.bucket_id), prices=prices)
            for key, raw in shown
        ],
        "buckets": buckets,
        "budgets": list(budgets),
        "positions": [
            position(row, chain=chains[row.chain_id], prices=prices)
            for row in positions
            if row.is_open and row.chain_id in chains
        ],
        "goals": list(goals),
        "unreadCount": unread,
        "achievements": list(achievements),
    }
