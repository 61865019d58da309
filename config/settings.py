"""The only reader of the environment. Frozen; an unknown name or a missing secret stops the start in one clear sentence."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "EXPENDI_"
ENGINES_FILE = "engines.json"
SECRET_FILE = "secret"


class SettingsError(Exception):
    """A setting is unknown, missing or malformed; the message says which variable to change and how."""


class Settings(BaseSettings):
    """Every setting of every process; each field names its unit, its default and why."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True, str_strip_whitespace=True
    )

    env: Literal["development", "production"] = "development"
    """`development` serves urls left unset from embedded engines; `production` requires every url and secret."""
    data_dir: Path = Path(".expendi")
    """Folder of the embedded engines' data, the development secret and the devnet's chain table."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged."""

    database_url: str = ""
    """PostgreSQL 15 or newer, `postgresql://user:password@host:port/database`."""
    redis_url: str = ""
    """Redis 7 or Valkey: pub/sub, rate limits, caches."""
    queue_url: str = ""
    """Redis of the job queues; must not be a cluster. Default: the Redis url."""
    clickhouse_url: str = ""
    """ClickHouse over HTTP, `http://user:password@host:port/database`."""
    s3_endpoint: str = ""
    """S3-compatible object storage; unset: a local folder under the data folder."""
    chains_file: Path | None = None
    """TOML chain table. Unset in development: the built-in devnet."""

    secret_key: SecretStr = SecretStr("")
    """At least 32 characters; signs resume tokens and cursors. Development makes its own under the data folder."""
    origins: tuple[str, ...] = ()
    """JSON list of allowed browser origins, as `["https://app.expendi.example"]`. Development also allows localhost."""
    trusted_proxies: tuple[str, ...] = ()
    """JSON list of networks (CIDR) whose X-Forwarded-For is believed."""
    domain: str = "localhost"
    """Domain that a sign-in message must name (EIP-4361); `host` or `host:port`."""
    sign_in_uris: tuple[str, ...] = ()
    """JSON list of URIs (prefix match on origin) that a sign-in message may name. Default: any http(s) URI on the domain."""

    host: str = "127.0.0.1"
    """Address the web process listens on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port of the web process; 0 takes a free one."""

    access_token_ttl_s: int = Field(default=900, ge=10)
    """Life of an access token (s): short, since a stolen one works until then."""
    refresh_token_ttl_s: int = Field(default=30 * 86400, ge=60)
    """Life of a refresh token (s); every use gives a new one."""
    nonce_ttl_s: int = Field(default=300, ge=10)
    """Life of a sign-in nonce (s): enough to approve in a wallet."""

    sign_in_limit_per_minute: int = Field(default=10, ge=1)
    """Calls per minute, user (or address of the caller) and sign-in route."""
    read_limit_per_minute: int = Field(default=600, ge=1)
    """REST reads per minute and user."""
    command_limit_per_minute: int = Field(default=120, ge=1)
    """Socket commands per minute and user."""

    socket_buffer_bytes: int = Field(default=256 * 1024, ge=16 * 1024)
    """Unsent bytes at which a slow socket is closed (bytes); it resumes from the log."""
    socket_connect_timeout_s: float = Field(default=10.0, gt=0)
    """Time a socket has to finish its handshake (s)."""
    ping_interval_s: float = Field(default=25.0, gt=0)
    """Engine.IO ping interval (s); 25 is the protocol's default and keeps proxies awake."""
    ping_timeout_s: float = Field(default=20.0, gt=0)
    """Time a client has to answer a ping (s)."""
    max_sockets_per_user: int = Field(default=50, ge=1)
    """Sockets one user may hold on one process; the oldest is closed for a new one."""
    replay_limit: int = Field(default=10_000, ge=1)
    """Most events replayed to a socket; beyond it a snapshot is cheaper."""
    head_check_interval_s: float = Field(default=2.0, gt=0)
    """How often counter rows of connected users are compared (s), so a lost last message is found."""

    log_retention_days: int = Field(default=30, ge=1)
    """Days an event stays in a user's log; older clients get a snapshot."""
    poll_interval_s: float = Field(default=1.0, gt=0)
    """How often a chain is polled for its head (s) when its websocket is silent."""
    rpc_timeout_s: float = Field(default=10.0, gt=0)
    """Time one JSON-RPC call may take (s)."""

    @property
    def queue(self) -> str:
        """Url of the job queues' Redis."""
        return self.queue_url or self.redis_url


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read settings from the environment; raise SettingsError with one sentence that says what to change."""
    env = dict(os.environ if environ is None else environ)
    ours = {name: value for name, value in env.items() if name.startswith(PREFIX)}
    _refuse_unknown(ours)
    values = _parse({name: value for name, value in ours.items() if value != ""})
    settings = _validated(values)
    if settings.env == "development":
        settings = _validated({**_development_defaults(settings), **values})
    _refuse_missing(settings)
    return settings
