"""ClickHouse's HTTP interface over chdb, the engine as a library: the unmodified official client can't tell them apart.

chdb opens a folder in one process only, so one front serves every process. Not spoken: users, sessions and temporary
tables, external data, compressed or streamed answers, progress headers.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import shutil
import tempfile
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb
import lz4.frame  # type: ignore[import-untyped]  # the wheel ships no types
import zstandard
from aiohttp import web

from config.embedded.engine import DATABASE

HANDLES = 4
"""Queries that run at once: chdb frees the interpreter while it works, and a development machine has few cores."""
_LARGEST_BODY = 1 << 30

# Consumed by the transport; the engine refuses them as unknown or has no use for them.
_TRANSPORT = frozenset(
    [
        "query",
        "database",
        "default_format",
        "user",
        "password",
        "quota_key",
        "query_id",
        "session_id",
        "session_timeout",
        "session_check",
        "role",
        "compress",
        "decompress",
        "buffer_size",
        "wait_end_of_query",
        "client_protocol_version",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "enable_http_compression",
        "cancel_http_readonly_queries_on_client_close",
    ]
)
_NAME = r"(?:`[^`]+`|\"[^\"]+\"|\w+)"
_INSERT = re.compile(
    rb"^\s*(?P<into>INSERT\s+INTO\s+(?:TABLE\s+)?%b(?:\.%b)?\s*(?:\([^)]*\))?)\s*(?P<settings>SETTINGS\s[^\n]*?)?"
    rb"\s*FORMAT\s+(?P<format>\w+)[ \t;]*(?:\r?\n|$)" % (_NAME.encode(), _NAME.encode()),
    re.IGNORECASE,
)
_TRAILING_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*(?:SETTINGS\s[^']*)?;?\s*$", re.IGNORECASE)
_SETTING = re.compile(r"^[A-Za-z_]\w*$")
_CODE = re.compile(r"Code: (\d+)")
_NOT_FOUND = {46, 60, 81}  # unknown function, table, database: the codes a real server answers with 404

_DECODE: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "lz4": lz4.frame.decompress,
    "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, taken apart."""

    sql: bytes
    database: str = "default"
    params: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    default_format: str = "TabSeparated"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine said; `format` is None when the statement has no result set."""

    body: bytes
    format: str | None
    summary: Mapping[str, str]


class Handle:
    """One connection of chdb. `USE` and `SET` belong to it, so it serves one request at a time."""

    def __init__(self, folder: Path, incoming: Path) -> None:
        self._connection = chdb.connect(str(folder))
        self._incoming = incoming

    def close(self) -> None:
        """Close the connection; the last one closes the engine."""
        self._connection.close()

    def run(self, ask: Ask) -> Answer:
        """Run one request with its database and settings, and leave nothing of it on the handle."""
        self._query(f"USE {_identifier(ask.database)}")
        done: list[str] = []
        try:
            for name, value in ask.settings.items():
                self._query(f"SET {_setting(name)} = {_literal(value)}")
                done.append(name)
            return self._insert(ask, insert) if (insert := _INSERT.match(ask.sql)) else self._select(ask)
        finally:
            for name in done:
                self._query(f"SET {name} = DEFAULT")

    def _query(self, sql: str, output: str = "TabSeparated", params: Mapping[str, str] | None = None) -> Any:
        return self._connection.query(sql, output, params=dict(params or {}))

    def _insert(self, ask: Ask, insert: re.Match[bytes]) -> Answer:
        with tempfile.NamedTemporaryFile(dir=self._incoming, suffix=".block") as block:
            block.write(ask.sql[insert.end() :])
            block.flush()
            into, settings, chosen = (insert[name] or b"" for name in ("into", "settings", "format"))
            source = f"FROM INFILE {_literal(block.name)} COMPRESSION 'none'"
            statement = f"{into.decode()} {source} {settings.decode()} FORMAT {chosen.decode()}"
            result = self._query(statement, params=ask.params)
        # Reading the file is all it read, so what it read is what it wrote.
        written = {"written_rows": str(result.rows_read()), "written_bytes": str(result.bytes_read())}
        return Answer(b"", None, {**_summary(result), **written})

    def _select(self, ask: Ask) -> Answer:
        chosen = _TRAILING_FORMAT.search(ask.sql)
        if chosen or ask.default_format != "TabSeparated":
            output = chosen[1].decode() if chosen else ask.default_format
            result = self._query(ask.sql.decode(), output, ask.params)
            return Answer(result.bytes() or b"", output, _summary(result))
        # With names, a statement that has a result set says at least their line, and one that has none says nothing.
        result = self._query(ask.sql.decode(), "TabSeparatedWithNames", ask.params)
        names, _, body = (result.bytes() or b"").partition(b"\n")
        return Answer(body, "TabSeparated" if names else None, _summary(result))


def _summary(result: Any) -> dict[str, str]:
    return {
        "read_rows": str(result.rows_read()),
        "read_bytes": str(result.bytes_read()),
        "written_rows": "0",
        "written_bytes": "0",
        "elapsed_ns": str(int(result.elapsed() * 1e9)),
    }


def _identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _setting(name: str) -> str:
    if not _SETTING.match(name):
        raise ValueError(f"Code: 115. DB::Exception: Unknown setting {name!r}. (UNKNOWN_SETTING)")
    return name


async def read_ask(request: web.Request) -> Ask:
    """Take a request apart: its statement is the parameter `query`, then the body; settings are what is left."""
    values = dict(request.query)
    if request.content_type.startswith("multipart/"):
        values |= {name: str(value) for name, value in (await request.post()).items()}
        body = b""
    else:
        body = _DECODE[request.headers.get("Content-Encoding", "")](await request.read())
    query = values.get("query", "").encode()
    return Ask(
        sql=query + b"\n" + body if query and body else query or body,
        database=values.get("database") or "default",
        params={name.removeprefix("param_"): value for name, value in values.items() if name.startswith("param_")},
        settings={
            name: value for name, value in values.items() if name not in _TRANSPORT and not name.startswith("param_")
        },
        default_format=values.get("default_format", "TabSeparated"),
    )


class Front:
    """Serves one chdb folder over HTTP."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(max_workers=HANDLES, thread_name_prefix="chdb")
        self._idle: asyncio.Queue[Handle] = asyncio.Queue()
        self._zone = "UTC"

    def application(self) -> web.Application:
        """The aiohttp application; it opens the engine when it starts and closes it when it stops."""
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_get("/ping", self._ping)
        app.router.add_route("*", "/", self._answer)
        app.cleanup_ctx.append(self._engine)
        return app

    async def _engine(self, _app: web.Application) -> AsyncIterator[None]:
        incoming = self._folder.with_name(f"{self._folder.name}.incoming")
        shutil.rmtree(incoming, ignore_errors=True)  # a killed front leaves the blocks it was reading
        incoming.mkdir(parents=True)
        handles = [Handle(self._folder, incoming) for _ in range(HANDLES)]
        # chdb's `default` database refuses refreshable views; ours is Atomic, as a server's is.
        handles[0].run(Ask(f"CREATE DATABASE IF NOT EXISTS {DATABASE} ENGINE = Atomic".encode()))
        self._zone = handles[0].run(Ask(b"SELECT timezone()")).body.decode().strip()
        for handle in handles:
            self._idle.put_nowait(handle)
        yield
        for handle in handles:
            handle.close()

    async def _ping(self, _request: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def _answer(self, request: web.Request) -> web.Response:
        headers = {
            "X-ClickHouse-Query-Id": request.query.get("query_id") or str(uuid.uuid4()),
            "X-ClickHouse-Server-Display-Name": "embedded",
            "X-ClickHouse-Timezone": self._zone,
        }
        try:
            ask = await read_ask(request)
            answer = await self._run(ask) if ask.sql.strip() else Answer(b"Ok.\n", None, {})
        except KeyError as error:
            return _refusal(f"Code: 48. DB::Exception: unknown Content-Encoding {error}. (NOT_IMPLEMENTED)", headers)
        except (RuntimeError, ValueError) as error:  # chdb's own errors are RuntimeErrors
            return _refusal(str(error), headers)
        headers["X-ClickHouse-Summary"] = json.dumps(answer.summary)
        if answer.format:
            headers["X-ClickHouse-Format"] = answer.format
        return web.Response(body=answer.body, headers=headers, content_type="application/octet-stream")

    async def _run(self, ask: Ask) -> Answer:
        handle = await self._idle.get()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, handle.run, ask)
        finally:
            self._idle.put_nowait(handle)


def _refusal(message: str, headers: Mapping[str, str]) -> web.Response:
    found = _CODE.search(message)
    text = message[found.start() :] if found else f"Code: 1002. DB::Exception: {message}"
    code = int(found[1]) if found else 1002
    return web.Response(
        status=404 if code in _NOT_FOUND else 500,
        text=f"{text.strip()} (version {chdb.engine_version} (embedded))\n",
        headers={**headers, "X-ClickHouse-Exception-Code": str(code)},
    )


def serve(folder: Path, *, port: int) -> None:
    """Serve `folder` on a loopback port until SIGTERM or SIGINT."""
    folder.mkdir(parents=True, exist_ok=True)
    web.run_app(
        Front(folder).application(),
        host="127.0.0.1",
        port=port,
        print=None,
        access_log=None,
        shutdown_timeout=5,
        auto_decompress=False,  # bodies are decoded here, lz4 included
    )
