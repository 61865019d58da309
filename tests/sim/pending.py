"""Faults of the product that runs found and that are not mended yet: mended here, so that runs go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from store.chain import token_balances
from watchers import balances


class _Strict:
    """An Rpc whose calls of contracts have an answer."""

    def __init__(self, rpc: Any) -> None:
        self._rpc = rpc

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rpc, name)

    async def answers(self, calls: Any) -> list[Any]:
        found: list[Any] = await self._rpc.answers(calls)
        if any(answer is None for answer in found):
            raise self._rpc.fault("null", "no answer", method="eth_call")
        return found


@contextmanager
def mended() -> Iterator[None]:
    """Seed 58: `null` for a balance opened a user's own address at 0 for good; it must be an error like any other."""
    with mock.patch.object(balances, "token_balances", lambda rpc, *rest: token_balances(_Strict(rpc), *rest)):  # type: ignore[arg-type]  # stands in for Rpc
        yield
