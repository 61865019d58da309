"""Finds what a process has started, for tests that nothing outlives it."""

from __future__ import annotations

from pathlib import Path


def family(pid: int) -> set[int]:
    """A process and everything below it, by process id."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found
