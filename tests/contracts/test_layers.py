"""Rules of the layout that import-linter can't state (it knows external packages as wholes)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("realtime", "handlers", "watchers", "jobs", "store", "config")
MAY_SERVE_HTTP = ("realtime", "config/embedded")
MAY_READ_ENVIRONMENT = ("config/settings.py", "config/cli.py", "config/embedded", "config/procfile.py")


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_http_is_served_by_realtime_and_the_embedded_front_alone(path: Path) -> None:
    if not str(path.relative_to(ROOT)).startswith(MAY_SERVE_HTTP):
        assert "aiohttp.web" not in imported(path)


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_environment_is_read_by_the_settings_alone(path: Path) -> None:
    if not str(path.relative_to(ROOT)).startswith(MAY_READ_ENVIRONMENT):
        text = path.read_text()
        assert "os.environ" not in text
        assert "getenv" not in text


def test_every_package_file_is_short_enough_to_be_read() -> None:
    long = {str(p.relative_to(ROOT)): n for p in modules() if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


def test_locks_name_no_index() -> None:
    assert '"resolved"' not in (ROOT / "package-lock.json").read_text()
    assert "://" not in (ROOT / "requirements.lock").read_text()
