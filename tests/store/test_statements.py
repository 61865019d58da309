"""Every named statement of every store/sql file is valid against the migrated schema, and is used."""

from __future__ import annotations

import re
from collections import Counter

import asyncpg
import pytest

from store.postgres import Pool
from store.statements import FOLDER, load

FEATURES = sorted(path.stem for path in FOLDER.glob("*.sql"))


@pytest.mark.parametrize("feature", FEATURES)
async def test_statements_prepare_on_the_migrated_schema(feature: str, pool: Pool) -> None:
    wrong = {}
    async with pool.acquire() as conn:
        for name, sql in load(feature).items():
            try:
                await conn.prepare(sql)
            except asyncpg.PostgresError as error:
                wrong[name] = str(error)
    assert not wrong


@pytest.mark.parametrize("feature", FEATURES)
def test_names_are_unique_and_used(feature: str) -> None:
    text = (FOLDER / f"{feature}.sql").read_text(encoding="utf-8")
    names = Counter(re.findall(r"^-- ([a-z][a-z0-9_]*) --$", text, re.MULTILINE))
    assert names
    assert max(names.values()) == 1
    assert list(names) == list(load(feature))
    code = "\n".join(path.read_text(encoding="utf-8") for path in FOLDER.parent.glob("*.py"))
    assert [name for name in names if f'"{name}"' not in code] == []


def test_files_hold_nothing_outside_a_named_statement() -> None:
    for feature in FEATURES:
        text = (FOLDER / f"{feature}.sql").read_text(encoding="utf-8")
        before = text.split("-- ", maxsplit=1)[0]
        assert before.strip() == "", feature
