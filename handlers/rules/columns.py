"""The columns of exported transactions: one dictionary for every format, and how a row is written in each. Pure.

Amounts stay exact: raw base units and decimals as text, never a float. CSV is for spreadsheets: it begins with a byte
order mark, since Excel takes text without one for the machine's own code page, and a text cell that a spreadsheet
would run as a formula gets an apostrophe in front. NDJSON is for programs: UTF-8 as it is, null where there is nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import orjson

from handlers.rules.money import dollars, plain_text
from handlers.rules.periods import iso
from store.records import TransactionRow

Format = Literal["csv", "ndjson", "parquet"]
Kind = Literal["text", "integer", "decimal", "time"]
Exported = Mapping[str, str | int | None]

MEDIA: Mapping[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
BOM = b"\xef\xbb\xbf"
LINE_END = "\r\n"
"""RFC 4180."""

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Beginnings that spreadsheets take for a formula; the wide forms are what some locales make of the others."""
_QUOTED = frozenset('",\r\n')


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name in every format, the kind of its values, and what they mean."""

    name: str
    kind: Kind
    meaning: str
    parquet: bool = True
    """Whether Parquet has it: ClickHouse keeps no memos, and none of the user's own names."""


COLUMNS: Sequence[Column] = (
    Column("id", "text", "Transaction id, `<chainId>:<txHash>:<n>`."),
    Column("chainId", "integer", "Chain id."),
    Column("txHash", "text", "Hash of the transaction that it was part of."),
    Column("logIndex", "integer", "Position of its log in the block."),
    Column("blockNumber", "integer", "Number of its block."),
    Column("blockHash", "text", "Hash of its block."),
    Column("blockTime", "time", "Time of its block, UTC."),
    Column("status", "text", "included, confirmed or finalized when the export was made.", parquet=False),
    Column("type", "text", "What happened: spend, deposit, transfer, …"),
    Column("accountType", "text", "spending, investment or savings."),
    Column("direction", "text", "in, out or internal, as the user's money moved."),
    Column("role", "text", "owner, or delegate for what was spent from someone else's bucket."),
    Column("token", "text", "Token address; zero for the chain's own coin."),
    Column("symbol", "text", "Token symbol; empty for a token that is not listed."),
    Column("decimals", "integer", "Decimals of the token; empty where they are not known."),
    Column("amountRaw", "integer", "Amount in base units, exact up to 256 bits: read it as text or a big integer."),
    Column("amount", "decimal", "amountRaw / 10^decimals, exact; empty where decimals are not known."),
    Column("usd", "decimal", "Value in US dollars at its block; empty where no price was known, never a guess."),
    Column("feeWei", "integer", "Fee that the user paid, in wei of the chain's coin; empty where someone else did."),
    Column("counterparty", "text", "The other side's address; empty where there is none."),
    Column("counterpartyLabel", "text", "The user's own name for it.", parquet=False),
    Column("spender", "text", "Who signed the spend."),
    Column("wallet", "text", "The wallet contract; empty for the user's own address."),
    Column("bucketId", "text", "Id of the bucket that it left."),
    Column("bucket", "text", "Name of that bucket."),
    Column("toBucketId", "text", "Id of the bucket that it reached."),
    Column("toBucket", "text", "Name of that bucket."),
    Column("categoryId", "text", "Id of its category."),
    Column("category", "text", "The category's name as the user sees it.", parquet=False),
    Column("memo", "text", "The user's own note.", parquet=False),
)
NAMES = tuple(column.name for column in COLUMNS)
TEXTS = frozenset(column.name for column in COLUMNS if column.kind == "text")


def dictionary(format_: Format) -> list[dict[str, str]]:
    """What the columns of a format mean, in its order."""
    return [
        {"name": column.name, "kind": column.kind, "meaning": column.meaning}
        for column in COLUMNS
        if column.parquet or format_ != "parquet"
    ]


def exported(
    row: TransactionRow,
    *,
    status: str,
    label: str | None,
    category: tuple[str, str] | None,
    memo: str | None,
) -> Exported:
    """A ledger row as it is exported; `category` is its id and name. A delegate's row has neither memo nor category."""
    category_id, category_name = category or (None, None)
    return {
        "id": row.id,
        "chainId": row.chain_id,
        "txHash": row.tx_hash,
        "logIndex": row.log_index,
        "blockNumber": row.block_number,
        "blockHash": row.block_hash,
        "blockTime": iso(row.block_time),
        "status": status,
        "type": row.type,
        "accountType": row.account_type,
        "direction": row.direction,
        "role": row.role,
        "token": row.token,
        "symbol": row.symbol,
        "decimals": row.decimals,
        "amountRaw": str(row.amount),
        "amount": None if row.decimals is None else plain_text(row.amount, row.decimals),
        "usd": None if row.usd is None else dollars(row.usd),
        "feeWei": None if row.fee_wei is None else str(row.fee_wei),
        "counterparty": row.counterparty,
        "counterpartyLabel": label,
        "spender": row.spender,
        "wallet": row.wallet,
        "bucketId": row.bucket_id,
        "bucket": row.bucket,
        "toBucketId": row.to_bucket_id,
        "toBucket": row.to_bucket,
        "categoryId": category_id,
        "category": category_name,
        "memo": memo,
    }


def head(format_: Format) -> bytes:
    """What a file of this format begins with."""
    return BOM + (",".join(NAMES) + LINE_END).encode() if format_ == "csv" else b""


def lines(format_: Format, rows: Sequence[Exported]) -> bytes:
    """Rows as lines of CSV or NDJSON."""
    if format_ == "csv":
        return "".join(csv_line(row) for row in rows).encode()
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def csv_line(row: Exported) -> str:
    """One record, RFC 4180."""
    return ",".join(_cell(row[name], is_text=name in TEXTS) for name in NAMES) + LINE_END


def _cell(value: str | int | None, *, is_text: bool) -> str:
    if value is None:
        return ""
    text = str(value)
    if is_text and text.lstrip(" ").startswith(_FORMULAS):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"' if _QUOTED.intersection(text) or text != text.strip() else text


def file_name(what: str, at: datetime, ending: str) -> str:
    """Name under which a browser keeps a download: our own words and a date, so that nothing has to be escaped."""
    return f"expendi-{what}-{at:%Y-%m-%d}.{ending}"


def attachment(name: str) -> str:
    """Content-Disposition of a download of one of our names."""
    return f'attachment; filename="{name}"'
