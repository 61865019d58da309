from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal

import orjson
import pytest

from handlers.rules.columns import COLUMNS, NAMES, attachment, csv_line, dictionary, exported, file_name, head, lines
from tests.factories import make_transaction


def row(**changes: object) -> dict[str, str | int | None]:
    facts = {"status": "included", "label": None, "category": None, "memo": None}
    mine = {name: changes.pop(name) for name in list(changes) if name in facts}
    return dict(exported(make_transaction(**changes), **{**facts, **mine}))  # type: ignore[arg-type]  # a test's own words


def read(*rows: dict[str, str | int | None]) -> list[dict[str, str]]:
    text = (head("csv") + lines("csv", rows)).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_a_row_reads_back_from_csv_and_ndjson() -> None:
    given = row(
        memo='a "quoted", note', label="Café ☕", category=("id", "Food & Dining"), bucket=" x ", usd=Decimal("0.1")
    )
    [back] = read(given)
    assert back == {name: "" if value is None else str(value) for name, value in given.items()}
    assert orjson.loads(lines("ndjson", [given])) == given
    assert lines("ndjson", [given]).endswith(b"}\n")


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "=cmd|'/c calc'!A1", "  =1", "＝1", "＋1", "－1", "＠x", '="x"'],
)
def test_text_that_a_spreadsheet_would_run_is_disarmed(text: str) -> None:
    for column in ("memo", "bucket", "counterpartyLabel", "category", "symbol"):
        given = {**row(), column: text}
        [back] = read(given)
        assert back[column] == "'" + text
        assert csv_line(given).count("\r\n") >= 1


def test_numbers_stay_numbers() -> None:
    given = row(amount=2**256 - 1, usd=Decimal("-3.50"), fee_wei=1)
    [back] = read(given)
    assert back["amountRaw"] == str(2**256 - 1)
    assert back["usd"] == "-3.50"
    assert int(back["amount"].replace(".", "")) == 2**256 - 1
    assert all("'" not in back[column.name] for column in COLUMNS)


def test_what_is_not_known_is_empty_and_null() -> None:
    given = row(decimals=None, symbol=None, usd=None, fee_wei=None, counterparty=None)
    [back] = read(given)
    for name in ("amount", "symbol", "usd", "feeWei", "counterparty", "memo", "category"):
        assert back[name] == ""
        assert orjson.loads(lines("ndjson", [given]))[name] is None


@pytest.mark.parametrize("text", ["a,b", 'a"b', "a\nb", "a\r\nb", " a", "a ", "a;b", "ü", ""])
def test_cells_are_quoted_where_they_have_to_be(text: str) -> None:
    [back] = read({**row(), "memo": text})
    assert back["memo"] == text


def test_the_dictionary_names_every_column_once_and_says_what_parquet_lacks() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert list(row()) == list(NAMES)
    assert [each["name"] for each in dictionary("csv")] == list(NAMES)
    lacking = set(NAMES) - {each["name"] for each in dictionary("parquet")}
    assert lacking == {"status", "counterpartyLabel", "category", "memo"}
    assert all(each["meaning"].endswith(".") or "…" in each["meaning"] for each in dictionary("csv"))


def test_a_file_name_needs_no_escaping() -> None:
    name = file_name("transactions", datetime(2026, 11, 24, tzinfo=UTC), "csv")
    assert attachment(name) == 'attachment; filename="expendi-transactions-2026-11-24.csv"'
