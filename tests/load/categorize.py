"""`make bench-categorize`: spends per second through the keyless path, its memory, and its accuracy on held-out memos.

`--calibrate` prints how the constants of jobs/outbound/classifier.py do on the train part alone (ten-fold).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

MEMOS = Path(__file__).with_name("memos.csv")
TRAIN_SHARE = 166
"""Of 256: a row whose memo's SHA-256 begins with a byte below this is for training. Nobody chooses."""

Part = Literal["train", "held-out"]


@dataclass(frozen=True)
class Labelled:
    part: Part
    category: str
    memo: str


def rows(part: Part | None = None) -> list[Labelled]:
    with MEMOS.open(newline="", encoding="utf-8") as file:
        found = [Labelled(**row) for row in csv.DictReader(file)]  # type: ignore[arg-type]  # checked by its test
    return [row for row in found if part in (None, row.part)]


def part_of(memo: str) -> Part:
    return "train" if sha256(memo.encode()).digest()[0] < TRAIN_SHARE else "held-out"
