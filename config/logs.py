"""One JSON line per thing that happened, to standard error, with bound ids and without secrets.

Standard output stays free: some processes answer on it (`python -m store doctor`).
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "***"

_SECRET_KEY = re.compile(
    r"token|authorization|secret|signature|password|passwd|cookie|credential|private_?key|api_?key", re.IGNORECASE
)
# The domain has tokens that are contracts: an address is public, whatever its key is called.
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_URL_PASSWORD = re.compile(r"(://[^/@\s:]*):[^/@\s]+@")
_URL_KEY = re.compile(r"(://[^\s?#]*?/)[A-Za-z0-9_-]{24,}")  # node providers put the key into the path
_BEARER = re.compile(r"(bearer\s+)[A-Za-z0-9._~+/=-]+", re.IGNORECASE)


def configure(level: str, *, process: str) -> None:
    """Send everything that is logged, by us or by a library (from warning up), as JSON lines to standard error.

    `level` is the least severe level shown (`debug`, `info`, `warning`, `error`); `process` is bound to every line.
    """
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*_chain(), structlog.processors.JSONRenderer(serializer=_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *_chain()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=lambda value, **kw: _dumps(value, **kw).decode()),
            ],
        )
    )
    logging.basicConfig(
        handlers=[handler], level=max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]), force=True
    )


def _chain() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,  # text without local variables: those hold what must not be logged
        mask_secrets,
    ]


def _dumps(value: Any, **_: Any) -> bytes:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what is secret by `***`: values under telling keys, passwords and keys in urls, bearer tokens."""
    return cast(EventDict, _masked(event))


def _masked(value: Any, *, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {name: _masked(inner, key=str(name)) for name, inner in value.items()}
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)  # orjson's range; amounts are 256 bits wide
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(inner, key=key) for inner in value]
    text = value.decode(errors="replace") if isinstance(value, bytes | bytearray) else str(value)
    if _SECRET_KEY.search(key) and not _ADDRESS.fullmatch(text):
        return MASK
    return scrub(text)


def scrub(text: str) -> str:
    """Take passwords and keys of urls, and bearer tokens, out of a text."""
    if "://" in text:
        text = _URL_KEY.sub(rf"\1{MASK}", _URL_PASSWORD.sub(rf"\1:{MASK}@", text))
    return _BEARER.sub(rf"\1{MASK}", text)
