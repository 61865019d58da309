"""`expendi doctor`: asks each engine who it is and says what to do about one that does not answer."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from config.embedded import children
from config.embedded.chain import binary as anvil
from config.embedded.engine import EngineError
from config.logs import scrub

NODE_MAJOR = 20
_TIMEOUT_S = 60
_ASKED = ("store", "watchers")
"""Packages whose `doctor` answers with JSON lines: databases, and the nodes of the chain table."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one engine said."""

    name: str
    ok: bool
    version: str = ""
    url: str = ""
    advice: str = ""
    """What to do when it is not ok."""

    def __str__(self) -> str:
        facts = "  ".join(filter(None, (scrub(self.url), scrub(self.advice))))
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name:<14}{self.version or '-':<12}  {facts}".rstrip()


def examine(env: Mapping[str, str]) -> Iterator[Finding]:
    """Ask the engines that the settings in `env` name, beside each other, then the programs the devnet needs."""
    with ThreadPoolExecutor() as pool:
        for findings in pool.map(lambda package: _ask(package, env), _ASKED):
            yield from findings
    yield from programs()


def programs() -> Iterator[Finding]:
    """Look for what npm has to bring; the product itself runs without it."""
    need = f"install Node {NODE_MAJOR} or newer; the devnet's compiler and the JavaScript client need it."
    node = _version("node")
    major = int(digits) if (digits := node.lstrip("v").partition(".")[0]).isdigit() else 0
    yield Finding("node", ok=major >= NODE_MAJOR, version=node, advice="" if major >= NODE_MAJOR else need)
    npm = _version("npm")
    yield Finding("npm", ok=bool(npm), version=npm, advice="" if npm else need)
    try:
        version = _version(str(anvil()))
    except EngineError as error:
        yield Finding("anvil", ok=False, advice=str(error))
    else:
        yield Finding("anvil", ok=True, version=version.partition(" ")[2].partition("-")[0] or version)


def _version(program: str) -> str:
    if not shutil.which(program):
        return ""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    return said.stdout.splitlines()[0].removeprefix("anvil Version:").strip() if said.stdout else ""


def _ask(package: str, env: Mapping[str, str]) -> list[Finding]:
    command = children.python(package, "doctor")
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=env)
    except subprocess.TimeoutExpired:
        return [Finding(package, ok=False, advice=f"`{package} doctor` did not answer within {_TIMEOUT_S} s.")]
    findings = [_finding(line) for line in said.stdout.splitlines() if line.startswith("{")]
    if findings:
        return findings
    last = (said.stderr.strip().splitlines() or [f"it said nothing (exit code {said.returncode})"])[-1]
    return [Finding(package, ok=False, advice=f"`python -m {package} doctor` does not work: {last}")]


def _finding(line: str) -> Finding:
    said = json.loads(line)
    return Finding(
        name=str(said["name"]),
        ok=bool(said["ok"]),
        version=str(said.get("version") or ""),
        url=str(said.get("url") or ""),
        advice=str(said.get("advice") or ""),
    )
