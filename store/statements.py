"""Named statements: SQL lives in store/sql/<feature>.sql under `-- name --` lines; Python only names it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent / "sql"
_NAME = re.compile(r"^-- (?P<name>[a-z][a-z0-9_]*) --$", re.MULTILINE)


def load(feature: str) -> Mapping[str, str]:
    """Statements of one feature by name, in file order."""
    text = (FOLDER / f"{feature}.sql").read_text(encoding="utf-8")
    marks = list(_NAME.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {mark["name"]: text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)}
