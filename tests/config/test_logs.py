"""Logs: JSON lines on standard error, library loggers included, secrets never."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog

from config import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    out, err = capfd.readouterr()
    assert out == ""
    return [orjson.loads(line) for line in err.splitlines()]


def test_a_line_is_json_with_level_time_process_and_bound_ids(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", process="watcher")
    structlog.get_logger().debug("hidden")
    with structlog.contextvars.bound_contextvars(chain=8453):
        structlog.get_logger().info("block", number=7, amount=2**255)
    [line] = lines(capfd)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "block",
        "level": "info",
        "process": "watcher",
        "chain": 8453,
        "number": 7,
        "amount": str(2**255),
    }


def test_library_loggers_come_through_from_warning_up(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", process="web")
    logging.getLogger("engineio").info("hidden")
    logging.getLogger("engineio").warning("slow %s", "client", extra={"token": "abc"})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old call", stacklevel=1)
    told, warned = lines(capfd)
    assert (told["logger"], told["event"], told["level"], told["process"]) == (
        "engineio",
        "slow client",
        "warning",
        "web",
    )
    assert told["token"] == logs.MASK
    assert "old call" in warned["event"]


def test_an_exception_is_one_line_without_its_secrets(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", process="web")
    try:
        raise ConnectionError("postgresql://expendi:hunter2@db/x refused")
    except ConnectionError:
        structlog.get_logger().exception("database away")
    [line] = lines(capfd)
    assert "ConnectionError: postgresql://expendi:***@db/x refused" in line["exception"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"access_token": "abc"}, {"access_token": "***"}),
        ({"headers": {"Authorization": "Bearer abc"}}, {"headers": {"Authorization": "***"}}),
        ({"auth": [{"refreshToken": b"abc"}]}, {"auth": [{"refreshToken": "***"}]}),
        ({"signature": "0x" + "12" * 65, "secret_key": "k"}, {"signature": "***", "secret_key": "***"}),
        ({"tokens": ["abc", "def"]}, {"tokens": ["***", "***"]}),
        ({"token": "0x" + "ab" * 20, "tokens": 3}, {"token": "0x" + "ab" * 20, "tokens": 3}),
        ({"event": "sent Authorization: bearer a.b-c"}, {"event": "sent Authorization: bearer ***"}),
        ({"url": "redis://:hunter2@cache/0"}, {"url": "redis://:***@cache/0"}),
        ({"url": f"https://base.node.example/v3/{'k' * 32}"}, {"url": "https://base.node.example/v3/***"}),
        ({"tx": "0x" + "ab" * 32, "done": True, "none": None}, {"tx": "0x" + "ab" * 32, "done": True, "none": None}),
    ],
)
def test_secrets_are_masked(given: dict[str, Any], shown: dict[str, Any]) -> None:
    assert logs.mask_secrets(None, "info", given) == shown
