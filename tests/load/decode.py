"""`python -m tests.load.decode`: microseconds per log, ours against web3's `process_log`, over the same logs."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import process_time

from config import abi
from store.records import Block, Log
from tests.watchers.said import ALICE, BOB, WALLET, Said, say, spent, transferred
from tests.watchers.test_decode import CHAIN, block_of, by_web3
from watchers.decode import decode

LOGS = 2_000
WEB3_LOGS = 200
ROUNDS = 7

KINDS: Mapping[str, Said] = {
    "Transfer": transferred(ALICE, BOB),
    "SpentFromBucket": spent(),
    "BucketCreated": say(WALLET, abi.BUCKET_CREATED, (ALICE,), bytes=b"groceries", uint256=10**9),
}


def main() -> None:
    sys.stdout.write(f"decode one log, us CPU (Python {platform.python_version()}, best of {ROUNDS})\n")
    for name, said in KINDS.items():
        block = block_of(*([said] * 4 for _ in range(LOGS // 4)))
        ours = best(partial(decode_all, block), LOGS)
        web3s = best(partial(web3_all, block.logs[:WEB3_LOGS]), WEB3_LOGS)
        sys.stdout.write(f"{name:18} ours {ours:6.2f}   web3 {web3s:6.1f}   ratio {web3s / ours:4.0f}x\n")


def best(work: Callable[[], None], count: int) -> float:
    """Least CPU time of several rounds, per item (us): noise only ever adds."""
    times = []
    for _ in range(ROUNDS):
        started = process_time()
        work()
        times.append(process_time() - started)
    return min(times) / count * 1e6


def decode_all(block: Block) -> None:
    """Everything that a block's decoding does: emitters, fields, n, spender, fees."""
    assert len(decode(block, CHAIN, {}).events) == LOGS


def web3_all(logs: Sequence[Log]) -> None:
    """The fields alone, by contracts that are made once."""
    for log in logs:
        by_web3(log.topics[0], log)


if __name__ == "__main__":
    main()
