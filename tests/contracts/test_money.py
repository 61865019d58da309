"""Money is exact: no float touches an amount from the chain to JSON, and sums lose no digit in any of the engines."""

from __future__ import annotations

import ast
import re
import threading
import typing
from collections.abc import Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import config
import realtime.rest.routes  # noqa: F401 - every model of a REST answer is known once the routes are
from handlers.resources import Resource
from handlers.rules.money import dollars
from handlers.rules.month_budget import Figure
from store.clickhouse import Analytics
from store.postgres import Pool

ROOT = Path(__file__).parents[2]
PACKAGES = ("realtime", "handlers", "watchers", "jobs", "store", "config")

FLOATS = {
    "config/embedded": "starts engines for development",
    "watchers/devnet": "people who do not exist, their pace and their screens",
    "handlers/rules/categorize.py": "odds of categories; of an amount it knows a power of ten",
    "jobs/outbound/classifier.py": "vectors of words",
    "jobs/outbound/embeddings.py": "vectors of words",
    "jobs/outbound/vectors.py": "vectors of texts",
    "jobs/decoder.py": "pixels",
    "jobs/attempt.py": "chance and milliseconds of retries",
    "jobs/outbound/failures.py": "seconds that a provider asks to wait",
    "jobs/outbound/fcm.py": "seconds that a provider asks to wait",
    "jobs/outbound/provider.py": "divides Decimals: what models cost",
    "realtime/limits.py": "seconds until a limit allows again",
    "realtime/app.py": "seconds until a limit allows again",
    "realtime/door.py": "moments of the loop's clock",
    "realtime/turns.py": "seconds of a turn",
    "store/nodes.py": "weights of what nodes did wrong",
    "store/probe.py": "weights of what nodes did wrong",
    "watchers/fetch.py": "weights of what nodes did wrong",
    "store/persistence.py": "seconds of lag",
    "store/postgres.py": "chance of a retry's pause",
    "watchers/pacing.py": "chance of a retry's pause",
    "jobs/outbound/llm.py": "chance of a retry's pause",
}
"""Where floats may be, and why none of them is an amount."""

DECIMALS = {
    "handlers/rules": "divides Decimals by Decimals or by counts, and rounds what it shows",
}
"""Where `/` is Decimal's: nothing else that makes a float may be near."""

MONEY = re.compile(r"amount|usd|balance|wei\b|price|spent|budget|dollars|\braw\b|fees?\b|fee_|principal|assets")
"""Words that name an amount: no exemption above covers them."""

TIME = re.compile(r"(^|[a-z]_)(s|ms|at)\b|timeout|interval|pause|patience|deadline|BUCKETS", re.IGNORECASE)
PLACES = re.compile(r"dir|folder|root|parent|path|logs|artifacts|icons|postgres|FILE|f'", re.IGNORECASE)


# What makes a float -------------------------------------------------------------------------------------------------


def suspicious(source: str) -> Iterator[tuple[int, str, str]]:
    """(line, kind, text) of whatever could make a float: `literal`, `division`, `call`, `import`."""
    tree = ast.parse(source)
    above = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        kind = _kind(node)
        if kind is None:
            continue
        said = _said(node, above)
        if not MONEY.search(said) and (_is_time(node, said, above) or (kind == "division" and PLACES.search(said))):
            continue
        yield getattr(node, "lineno", 0), kind, said


def _kind(node: ast.AST) -> str | None:
    match node:
        case ast.Constant(value=float()):
            return "literal"
        case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
            return "division"
        case ast.Call(func=ast.Name(id="float" | "round" | "fsum")):
            return "call"
        case ast.Import(names=names) if any(n.name in {"math", "statistics", "numpy", "random"} for n in names):
            return "import"
        case ast.ImportFrom(module="math" | "statistics" | "numpy" | "random"):
            return "import"
    return None


def _said(node: ast.AST, above: dict[ast.AST, ast.AST]) -> str:
    """The expression, or the whole of a short statement: a number alone does not tell what it is for."""
    top = node
    while not isinstance(top, ast.stmt) and top in above:
        top = above[top]
    whole = ast.unparse(top if isinstance(top, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return) else node)
    return whole if len(whole) < 200 else ast.unparse(node)


def _is_time(node: ast.AST, said: str, above: dict[ast.AST, ast.AST]) -> bool:
    """Whether a number belongs to something that is named as a time or a measure, not to an amount."""
    if TIME.search(said):
        return True
    while (parent := above.get(node)) is not None and not isinstance(node, ast.stmt):
        if isinstance(parent, ast.keyword):
            return bool(parent.arg and TIME.search(parent.arg))
        if isinstance(parent, ast.arguments):
            return any(TIME.search(each.arg) for each in (*parent.posonlyargs, *parent.args, *parent.kwonlyargs))
        if isinstance(parent, ast.Compare | ast.Call | ast.BinOp) and TIME.search(ast.unparse(parent)):
            return True
        node = parent
    return False


def faults(module: str, source: str) -> list[str]:
    """What a module does that it may not, as `line: text`."""
    allowed = any(module.startswith(place) for place in FLOATS)
    decimals = any(module.startswith(place) for place in DECIMALS)
    found = []
    for line, kind, text in suspicious(source):
        if kind == "division" and decimals:
            continue
        if allowed and not MONEY.search(text):
            continue
        if module in FLOATS and kind == "division" and FLOATS[module].startswith("divides Decimals"):
            continue
        found.append(f"{line}: {text}")
    return found


def modules() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()


def test_no_float_touches_an_amount() -> None:
    wrong = {module: found for module, source in modules() if (found := faults(module, source))}
    assert wrong == {}, "keep amounts int or Decimal; name what is no amount for its unit (_s), or its module in FLOATS"


def test_no_exemption_is_left_over() -> None:
    used = {
        place
        for module, source in modules()
        for place in (*FLOATS, *DECIMALS)
        if module.startswith(place) and any(suspicious(source))
    }
    assert used == FLOATS.keys() | DECIMALS.keys()


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("handlers/rules/wire.py", "usd = float(row.usd)"),
        ("handlers/rules/wire.py", "shown = row.amount * 1e-6"),
        ("handlers/history.py", "whole = row.amount / 10 ** 6"),
        ("handlers/rules/purse.py", "spent = round(figure.spent, 2)"),
        ("handlers/rules/forecast.py", "rate = spent * 0.5"),
        ("handlers/rules/forecast.py", "import statistics"),
        ("store/ledger.py", "wei = float(row['fee_wei'])"),
        ("store/feed.py", "cost = price / 2"),
        ("handlers/rules/categorize.py", "value = float(subject.usd)"),
        ("watchers/devnet/feed.py", "shown = amount / 10 ** decimals"),
        ("jobs/attempt.py", "cost_usd = 0.1 * usd"),
        ("realtime/rest/budgets.py", "from math import fsum"),
    ],
)
def test_planted_float_is_found(module: str, line: str) -> None:
    source = (ROOT / module).read_text()
    assert faults(module, source) == []
    assert faults(module, f"{source}\n\n{line}\n") != []


# What goes out ------------------------------------------------------------------------------------------------------


def models(kind: type[BaseModel] = BaseModel) -> Iterator[type[BaseModel]]:
    for each in kind.__subclasses__():
        if each.__module__.startswith(PACKAGES):
            yield each
        yield from models(each)


def floats_in(annotation: Any) -> bool:
    return annotation is float or any(map(floats_in, typing.get_args(annotation)))


def test_no_model_of_ours_has_a_float() -> None:
    known = {each for each in models() if not each.__name__.endswith("Settings")}
    assert len([each for each in known if issubclass(each, Resource)]) > 30
    wrong = {
        f"{each.__module__}.{each.__name__}.{name}"
        for each in known
        for name, field in each.model_fields.items()
        if floats_in(field.annotation)
    }
    assert wrong == set()


# Sums ---------------------------------------------------------------------------------------------------------------

MILLION = 10**6
STEP, TOP = 7_919_000_000_000_000_000_000_000_003, 10**31
"""The i-th amount is i * STEP % TOP units of 10^-18: up to ten trillion dollars, every place of the eighteen used."""


def raws() -> Iterator[int]:
    return (i * STEP % TOP for i in range(MILLION))


@pytest.fixture(scope="module")
def exact() -> str:
    """The sum as integers add up, in whole dollars."""
    digits = str(sum(raws()))
    return f"{digits[:-18]}.{digits[-18:]}"


def test_a_million_amounts_add_up_in_python(exact: str) -> None:
    figure = Figure()
    for raw in raws():
        figure = figure.plus(Decimal(raw).scaleb(-18))
    assert f"{figure.spent:f}" == exact
    assert dollars(figure.spent) == exact.rstrip("0")
    assert f"{sum((Decimal(raw).scaleb(-18) for raw in raws()), Decimal(0)):f}" == exact


def test_every_thread_adds_exactly() -> None:
    found: list[Decimal] = []
    huge, least = Decimal(2**256 - 1), Decimal(1).scaleb(-18)
    thread = threading.Thread(target=lambda: found.append(huge + least - huge))
    thread.start()
    thread.join()
    assert found == [least]
    assert huge + least - huge == least
    with localcontext(prec=28):
        assert huge + least - huge != least  # what it would be without
    assert config.EXACT_DIGITS >= 78 + 18


async def test_a_million_amounts_add_up_in_postgresql(pool: Pool, exact: str) -> None:
    async with pool.acquire() as conn:
        await conn.execute("CREATE TEMP TABLE ours AS SELECT usd, amount FROM transactions WITH NO DATA")
        await conn.execute(
            """INSERT INTO ours SELECT r / 1000000000000000000::numeric(40, 18), r
               FROM (SELECT (i * $1::numeric) % $2::numeric AS r FROM generate_series(0, $3::int - 1) AS i) AS t""",
            Decimal(STEP),
            Decimal(TOP),
            MILLION,
        )
        usd = await conn.fetchval("SELECT sum(usd)::numeric(60, 18) FROM ours")
        raw = await conn.fetchval("SELECT sum(amount) FROM ours")
    assert f"{usd:f}" == exact
    assert raw == sum(raws())


async def test_a_million_amounts_add_up_in_clickhouse(analytics: Analytics, exact: str) -> None:
    await analytics.command(
        "CREATE TABLE ours ENGINE = Memory AS SELECT amount_usd, amount_raw FROM transaction_events LIMIT 0"
    )
    await analytics.command(
        f"""INSERT INTO ours SELECT CAST(concat(toString(intDiv(r, toUInt256('{10**18}'))), '.',
                leftPad(toString(r % toUInt256('{10**18}')), 18, '0')) AS Decimal(38, 18)), r
            FROM (SELECT toUInt256(number) * toUInt256('{STEP}') % toUInt256('{TOP}') AS r FROM numbers({MILLION}))"""
    )
    [(usd, raw)] = await analytics.rows("SELECT sum(amount_usd), sum(amount_raw) FROM ours")
    assert f"{usd:f}" == exact
    assert raw == sum(raws())
