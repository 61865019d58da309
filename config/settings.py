"""The only reader of the environment; an unknown name or a missing secret stops the start in one clear sentence."""

from __future__ import annotations

import base64
import difflib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from config import written
from config.written import HttpUrl, Listed, PostgresUrl, RedisUrl, UsdAmount

PREFIX = "EXPENDI_"
ENGINES_FILE = "engines.json"
SECRET_FILE = "secret"  # noqa: S105 - a file name, not a secret

SEAL_KEYS_FILE = "seal_keys"

EMBEDDED = ("database_url", "redis_url", "clickhouse_url", "chains_file")
"""Settings that an embedded engine answers in development."""
REQUIRED_IN_PRODUCTION = (*EMBEDDED, "secret_key", "seal_keys", "domain")


MAIL_NEEDS = ("mail_from", "public_url")
"""Settings that e-mail needs in production."""


class SettingsError(Exception):
    """A setting is unknown, missing or malformed; the message says which variable to change and how."""


class Settings(BaseModel):
    """Every setting of every process; each field names its unit, its default and why."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, str_strip_whitespace=True)

    env: Literal["development", "production"] = "development"
    """`development` serves urls left unset from embedded engines; `production` requires every url and secret."""
    data_dir: Path = Path(".expendi")
    """Folder of the embedded engines' data, the development secret and the devnet's chain table."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged."""

    database_url: PostgresUrl = Field(default="", repr=False)
    """PostgreSQL 15 or newer, `postgresql://user:password@host:port/database`."""
    redis_url: RedisUrl = Field(default="", repr=False)
    """Redis 7 or Valkey, `redis://host:port/0`: pub/sub, rate limits, caches."""
    queue_url: RedisUrl = Field(default="", repr=False)
    """Redis of the job queues; must not be a cluster. Default: the Redis url."""
    clickhouse_url: HttpUrl = Field(default="", repr=False)
    """ClickHouse over HTTP, `http://user:password@host:port/database`."""
    s3_endpoint: HttpUrl = Field(default="", repr=False)
    """S3-compatible object storage, as R2; unset: AWS itself."""
    s3_bucket: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9.\-]{1,61}[a-z0-9])?$")
    """Bucket of pictures and documents; unset: a local folder under the data folder, for one machine."""
    s3_region: str = Field(default="auto", pattern=r"^[a-z0-9\-]+$")
    """Region of the bucket; `auto` is R2's."""
    s3_access_key: str = Field(default="", repr=False)
    """Access key id of the bucket; unset: whatever the machine's own AWS identity is."""
    s3_secret_key: SecretStr = SecretStr("")
    """Secret of the access key."""
    cdn_url: HttpUrl = ""
    """Where the bucket's `media/` is served to the public, as https://cdn.expendi.example; unset: by the app itself."""
    chains_file: Path | None = None
    """TOML chain table. Unset in development: the built-in devnet."""

    secret_key: Annotated[SecretStr, AfterValidator(written.long_enough)] = SecretStr("")
    """At least 32 characters; signs resume tokens and cursors. Development makes its own under the data folder."""
    seal_keys: Annotated[tuple[SecretStr, ...], Listed, AfterValidator(written.seal_keys)] = ()
    """List of `id:base64key` (32 bytes each) for e-mail, push tokens, memos. The first one seals, all of them open."""
    origins: Annotated[tuple[Annotated[str, AfterValidator(written.origin)], ...], Listed] = ()
    """List of allowed browser origins, as `["https://app.expendi.example"]`. Development also allows localhost."""
    trusted_proxies: Annotated[tuple[Annotated[str, AfterValidator(written.network)], ...], Listed] = ()
    """List of networks (CIDR) whose X-Forwarded-For is believed."""
    domain: str = Field(default="localhost", pattern=r"^[A-Za-z0-9.\-\[\]:]+$")
    """Domain that a sign-in message must name (EIP-4361); `host` or `host:port`."""
    sign_in_uris: Annotated[tuple[HttpUrl, ...], Listed] = ()
    """List of URIs (prefix match on origin) that a sign-in message may name. Default: any http(s) URI on the domain."""

    host: str = "127.0.0.1"
    """Address the web process listens on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port of the web process; 0 takes a free one."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port on which a watcher or worker serves its metrics on `host`; 0: none. Web has /metrics on its own port."""

    v1_public: bool = False
    """Whether the routes of the first front end (/api/…) answer for any address without a token, as they once did."""

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
    upload_limit_per_minute: int = Field(default=10, ge=1)
    """Pictures per minute and user: each costs a worker up to some seconds."""
    friend_requests_per_day: int = Field(default=20, ge=1)
    """Addresses that a user may ask to be friends in 24 hours: each of them may be told on a phone."""
    challenges_per_user: int = Field(default=20, ge=1)
    """Challenges not over that a user takes part in, or has made: each is measured with every block of theirs."""
    challenge_participants: int = Field(default=100_000, ge=1)
    """Most participants of one challenge: settling that many takes a worker a minute or two."""
    challenge_max_days: int = Field(default=366, ge=1)
    """Longest challenge (days): a year, since nobody keeps at anything longer."""
    challenge_settle_wait_hours: int = Field(default=24, ge=1)
    """Longest wait for chains to be final beyond a challenge's end (hours); a chain that is away delays no further."""
    export_limit_per_minute: int = Field(default=20, ge=1)
    """Exports and reports per minute and user: each reads much of a history."""
    export_rows: int = Field(default=100_000, ge=1)
    """Most transactions of an export that is answered at once; beyond it a job writes a document."""
    export_kept_hours: int = Field(default=24, ge=1)
    """Time a finished document is kept (hours): enough to fetch it, short since it holds a whole history."""

    leaderboard_interval_s: float = Field(default=1.0, ge=0)
    """Least time between two `leaderboard_update` to one participant (s): ranks change faster than anyone reads."""

    socket_buffer_bytes: int = Field(default=256 * 1024, ge=16 * 1024)
    """Unsent bytes at which a slow socket is closed (bytes); it resumes from the log."""
    socket_connect_timeout_s: float = Field(default=10.0, gt=0)
    """Time a socket has to finish its handshake (s)."""
    ping_interval_s: float = Field(default=25.0, gt=0)
    """Engine.IO ping interval (s); 25 is the protocol's default and keeps proxies awake."""
    ping_timeout_s: float = Field(default=20.0, gt=0)
    """Time a client has to answer a ping (s)."""
    connect_limit_per_minute: int = Field(default=1200, ge=1)
    """Socket.IO connections per minute and address of the caller, on one process; IPv6 counts by /64."""
    waiting_sockets_per_address: int = Field(default=200, ge=1)
    """Sockets of one address that have not signed in yet, on one process; more are refused (429)."""
    waiting_sockets: int = Field(default=10_000, ge=1)
    """Sockets that have not signed in yet, on one process; more are refused (503). Each holds some 20 KiB."""
    socket_connects_per_minute: int = Field(default=120, ge=1)
    """Connects per minute and user, on one process: each may read a snapshot."""
    max_sockets_per_user: int = Field(default=50, ge=1)
    """Sockets one user may hold on one process; the oldest is closed for a new one."""
    replay_limit: int = Field(default=10_000, ge=1)
    """Most events replayed to a socket; beyond it a snapshot is cheaper."""
    head_check_interval_s: float = Field(default=2.0, gt=0)
    """How often counter rows of connected users are compared (s), so a lost last message is found."""

    openai_api_key: SecretStr = SecretStr("")
    """Key of OpenAI; unset: it is not asked. Only spends of users who consent are shown to it."""
    openai_model: str = "gpt-5.4-nano"
    """Model of OpenAI: a small one that keeps to a JSON schema is enough."""
    openai_base_url: HttpUrl = Field(default="", repr=False)
    """Another server that speaks OpenAI's protocol, as `https://host/v1`."""
    openai_input_usd: UsdAmount = Decimal("0.20")
    """Price of a million tokens that the OpenAI model reads (US dollars)."""
    openai_output_usd: UsdAmount = Decimal("1.25")
    """Price of a million tokens that the OpenAI model writes (US dollars)."""
    embeddings: Literal["local", "openai"] = "local"
    """Whose vectors search by meaning uses; `openai` needs its key, and serves users who consent."""
    openai_embedding_model: str = "text-embedding-3-small"
    """Model of OpenAI's embeddings, of up to 1,900 numbers; after a change run `expendi embeddings rebuild`."""
    openai_embedding_usd: UsdAmount = Decimal("0.02")
    """Price of a million tokens that the embedding model reads (US dollars)."""
    anthropic_api_key: SecretStr = SecretStr("")
    """Key of Anthropic; unset: it is not asked. With both keys it is asked where OpenAI fails."""
    anthropic_model: str = "claude-haiku-4-5"
    """Model of Anthropic: a small one that keeps to a JSON schema is enough."""
    anthropic_base_url: HttpUrl = Field(default="", repr=False)
    """Another server that speaks Anthropic's protocol, as `https://host`."""
    anthropic_input_usd: UsdAmount = Decimal("1.00")
    """Price of a million tokens that the Anthropic model reads (US dollars)."""
    anthropic_output_usd: UsdAmount = Decimal("5.00")
    """Price of a million tokens that the Anthropic model writes (US dollars)."""
    ai_timeout_s: float = Field(default=8.0, gt=0, le=30)
    """Time one call of a language model may take (s); after it the local model's answer counts."""
    ai_daily_cap_usd: UsdAmount = Decimal("0.10")
    """Most that models may cost per user and UTC day (US dollars); some twenty questions of twenty spends. 0: none."""

    log_retention_days: int = Field(default=30, ge=1)
    """Days an event stays in a user's log; older clients get a snapshot."""
    poll_interval_s: float = Field(default=1.0, gt=0)
    """How often a chain is polled for its head (s) when its websocket is silent."""
    yield_interval_blocks: int = Field(default=150, ge=1)
    """How often open positions are valued and, where their yield moved, told (blocks); 150 are five minutes on Base."""
    yield_step_usd: UsdAmount = Decimal("0.01")
    """How far a position's yield has to move by itself to be told (US dollars): what a client shows is cents."""
    yield_evening_hour: int = Field(default=20, ge=0, le=23)
    """Hour of each user's own clock from which the day's yield is told (hours): when people look back on a day."""
    rpc_timeout_s: float = Field(default=10.0, gt=0)
    """Time one JSON-RPC call may take (s)."""
    price_every_blocks: int = Field(default=150, ge=1)
    """Blocks after which every price feed of a chain is read though nobody trades: balances show the newest price. 150:
    5 minutes on Base, less than most feeds wait between two answers."""
    rpc_probe_s: float = Field(default=5.0, gt=0)
    """How often all nodes of a chain with several are compared (s); one request each, within two blocks of a rollup."""
    rpc_stale_s: float = Field(default=30.0, gt=0)
    """Time a node's head may stand still while another's moves (s); twice the slowest block time we follow."""
    rpc_aside_s: float = Field(default=3.0, gt=0)
    """Shortest time a bad node is not asked (s); doubled each time up to a hundredfold, tenfold at once for a lie."""

    fcm_credentials: Path | None = None
    """Service account file (JSON) of the Firebase project that delivers pushes. Unset: none are sent."""
    fcm_url: HttpUrl = ""
    """Address that stands for Firebase Cloud Messaging, for a fake one in tests and the demo. Default: the real one."""
    push_hold_s: float = Field(default=10.0, ge=0)
    """Time a push is held back (s): a device that shows the event meanwhile needs no push of it."""

    mail_url: Annotated[SecretStr, AfterValidator(written.mail_url)] = SecretStr("")
    """Who delivers e-mail: `smtp://user:password@host:587`, `smtps://…` or `ses://region`. Unset: none is sent."""
    mail_from: str = Field(default="Expendi <no-reply@localhost>", pattern=r"^[^<>\r\n]*<[^<>@\s]+@[^<>@\s]+>$")
    """Sender of e-mail, `Name <address>`; its domain must be signed with DKIM by whoever delivers."""
    public_url: HttpUrl = "http://localhost:8080"
    """Where the web process is reached from outside: links in e-mail lead there."""

    @property
    def queue(self) -> str:
        """Url of the job queues' Redis."""
        return self.queue_url or self.redis_url


def variable(field: str) -> str:
    """Name of the environment variable of a field of Settings."""
    return PREFIX + field.upper()


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read settings from the environment; raise SettingsError with one sentence that says what to change.

    Without `environ`, a `.env` file in the working directory is read too; the process environment wins over it.
    """
    values = given(environ)
    settings = _validated(values)
    if settings.env == "development":
        settings = _validated({**_development_defaults(settings), **values})
    _refuse_missing(settings)
    return settings


def load_given(environ: Mapping[str, str] | None = None) -> Settings:
    """Read settings as they were given: nothing is filled in and nothing missing is refused (for `expendi` itself)."""
    return _validated(given(environ))


def given(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Read the variables that are set and not empty, by field name; raise SettingsError on an unknown one."""
    env = {**dotenv_values(".env"), **os.environ} if environ is None else environ
    ours = {name: value or "" for name, value in env.items() if name.startswith(PREFIX)}
    _refuse_unknown(ours)
    return {name.removeprefix(PREFIX).lower(): value for name, value in ours.items() if value.strip()}


def _refuse_unknown(names: Mapping[str, str]) -> None:
    fields = list(Settings.model_fields)
    for name in names:
        if name not in map(variable, fields):
            near = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), fields, n=1)
            advice = f"did you mean {variable(near[0])}?" if near else "remove it; .env.example lists every setting."
            raise SettingsError(f"{name} is not a setting: {advice}")


def _validated(values: Mapping[str, Any]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        # The value itself stays out of the sentence: it may be a secret or hold a password.
        first = error.errors(include_input=False, include_url=False)[0]
        field = str(first["loc"][0])
        cause = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{variable(field)} is malformed ({cause}); it means: {_doc(field).rstrip('.')}.") from None


def _development_defaults(settings: Settings) -> dict[str, Any]:
    return {
        **running_engines(settings.data_dir),
        "secret_key": settings.secret_key.get_secret_value() or _own(settings, "secret_key", SECRET_FILE, _new_secret),
        "seal_keys": settings.seal_keys or _own(settings, "seal_keys", SEAL_KEYS_FILE, _new_seal_key),
    }


def running_engines(data_dir: Path) -> dict[str, str]:
    """Urls and chain table of the embedded engines that run on this data folder, by field name; empty when none do."""
    path = data_dir / ENGINES_FILE
    try:
        engines = json.loads(path.read_bytes())
        pid = int(engines["pids"]["stack"])
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path} can't be read ({error}): delete it and start `expendi up` again.") from error
    # `expendi up` removes the file when it stops; after a SIGKILL it stays, and its engines died with their parent.
    return {field: engines[field] for field in EMBEDDED if engines.get(field)} if alive(pid) else {}


def alive(pid: int) -> bool:
    """Whether a process of this machine still runs; one that has ended and was not yet waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {b"Z", b"X"}


def _new_secret() -> str:
    return secrets.token_urlsafe(written.SECRET_LENGTH)


def _new_seal_key() -> str:
    return "dev:" + base64.b64encode(secrets.token_bytes(written.SEAL_KEY_BYTES)).decode()


def _own(settings: Settings, field: str, file: str, draw: Callable[[], str]) -> str:
    """Development's own secret, drawn once per data folder; whoever comes first wins, all read the same."""
    path = settings.data_dir / file
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _create_private(path, draw())
        return path.read_text()
    except OSError as error:
        raise SettingsError(
            f"{variable(field)} is not set and {path} can't be made ({error.strerror}): "
            f"set it, or {variable('data_dir')} to a folder that is yours."
        ) from error


def _create_private(path: Path, text: str) -> None:
    handle, draft = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.link(draft, path)  # unlike rename, never replaces what another process has just made
    except FileExistsError:
        return
    finally:
        Path(draft).unlink()


def _refuse_missing(settings: Settings) -> None:
    if settings.env == "production":
        for field in (*REQUIRED_IN_PRODUCTION, *(MAIL_NEEDS if settings.mail_url.get_secret_value() else ())):
            if field not in settings.model_fields_set:
                raise SettingsError(
                    f"{variable(field)} is not set and {variable('env')} is production: set it to: "
                    f"{_doc(field).rstrip('.')}."
                )
    for field in EMBEDDED:
        if not getattr(settings, field):
            raise SettingsError(
                f"{variable(field)} is not set and no embedded engines run: start `expendi up`, or set it."
            )


def _doc(field: str) -> str:
    return Settings.model_fields[field].description or field


def env_example() -> str:
    """The text of `.env.example`: every setting with its meaning and its default, commented out."""
    lines = [
        "# Every setting of every process. Copy to `.env` and uncomment what you change;",
        "# the process environment wins over the file. Lists are JSON or comma separated.",
        "# This file is generated: `python -m config.settings > .env.example`.",
    ]
    for field, facts in Settings.model_fields.items():
        lines += ["", f"# {facts.description}", f"#{variable(field)}={_written(facts.default)}"]
    return "\n".join(lines) + "\n"


def _written(default: object) -> str:
    if isinstance(default, tuple):
        return json.dumps(default) if default else ""
    return "" if default is None or isinstance(default, SecretStr) else str(default)


if __name__ == "__main__":
    import sys

    sys.stdout.write(env_example())
