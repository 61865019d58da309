"""Rows as the resources of CONTRACT: the same object in an event, a snapshot and a REST answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from config.chains import Chain
from handlers.rules.money import amount, token_facts, valued
from handlers.rules.periods import iso, period_end
from handlers.rules.prices import Prices
from store.records import ZERO_ADDRESS, BalanceKey, BucketRow, TransactionRow

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
        "fee": None if row.fee_wei is None else _fee(row, row.fee_wei, chain),
        "memo": memo,
    }


def _amount(row: TransactionRow) -> dict[str, object]:
    # The value is the one at the block, kept on the row: prices and table may have changed since.
    return valued(row.amount, row.decimals, symbol=row.symbol, token=row.token, usd=row.usd)


def _fee(row: TransactionRow, wei: int, chain: Chain) -> dict[str, object]:
    symbol, decimals = token_facts(chain, ZERO_ADDRESS)
    return valued(wei, decimals, symbol=symbol, token=ZERO_ADDRESS, usd=row.fee_usd)


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


def bucket(row: BucketRow, balances: Iterable[tuple[str, int]], *, chain: Chain, prices: Prices) -> dict[str, object]:
    """A bucket resource; `balances` are (token, raw amount), zeros left out, in token order."""
    end = period_end(row.period_start)
    return {
        "id": row.bucket_id,
        "chainId": row.chain_id,
        "wallet": row.wallet,
        "owner": row.user,
        "name": row.name,
        "active": row.active,
        "monthlyLimit": str(row.monthly_limit),
        "spent": str(row.spent),
        "periodStart": iso(row.period_start) if row.period_start else None,
        "periodEnd": iso(end) if end else None,
        "balances": [amount(chain, token, raw, prices=prices) for token, raw in sorted(balances) if raw != 0],
        "delegates": sorted(row.delegates),
    }


def snapshot(
    *,
    seq: int,
    buckets: Iterable[BucketRow],
    balances: Mapping[BalanceKey, int],
    chains: Mapping[int, Chain],
    prices: Prices,
    budgets: Sequence[Mapping[str, object]] = (),
    goals: Sequence[Mapping[str, object]] = (),
    unread: int = 0,
) -> dict[str, object]:
    """Everything a client shows, as of log position `seq`, at the newest `prices`.

    Rows of chains that left the table are left out.
    """
    rows = sorted((row for row in buckets if row.chain_id in chains), key=lambda row: row.bucket_id)
    names = {row.bucket_id: row.name for row in rows}
    held: dict[str, list[tuple[str, int]]] = {}
    shown = sorted((key, raw) for key, raw in balances.items() if raw != 0 and key.chain_id in chains)
    for key, raw in shown:
        if key.bucket_id:
            held.setdefault(key.bucket_id, []).append((key.token, raw))
    return {
        "seq": seq,
        "balances": [
            balance(key, raw, chain=chains[key.chain_id], bucket=names.get(key.bucket_id), prices=prices)
            for key, raw in shown
        ],
        "buckets": [
            bucket(row, held.get(row.bucket_id, ()), chain=chains[row.chain_id], prices=prices) for row in rows
        ],
        "budgets": list(budgets),
        "positions": [],
        "goals": list(goals),
        "unreadCount": unread,
        "achievements": [],
    }
