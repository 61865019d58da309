"""Settings: what the environment may say, and the one sentence it gets back when it says something else."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from config import settings
from config.settings import Settings, SettingsError, load, variable
from config.written import seal_key

ROOT = Path(__file__).parents[2]
SECRET = "k" * 32
SEAL_KEY = base64.b64encode(bytes(32)).decode()
PRODUCTION = {
    "EXPENDI_ENV": "production",
    "EXPENDI_DATABASE_URL": "postgresql://u:p@db/expendi",
    "EXPENDI_REDIS_URL": "redis://cache:6379/0",
    "EXPENDI_CLICKHOUSE_URL": "http://olap:8123/expendi",
    "EXPENDI_CHAINS_FILE": "/etc/expendi/chains.toml",
    "EXPENDI_SECRET_KEY": SECRET,
    "EXPENDI_SEAL_KEYS": "k2:" + SEAL_KEY + ", k1:" + SEAL_KEY,
    "EXPENDI_DOMAIN": "app.expendi.example",
}
URLS = {name: value for name, value in PRODUCTION.items() if name.endswith(("_URL", "_FILE"))}


def write_engines(folder: Path, *, pid: int) -> dict[str, str]:
    engines = {
        "database_url": "postgresql://expendi@127.0.0.1:5001/expendi",
        "redis_url": "redis://127.0.0.1:5002/0",
        "clickhouse_url": "http://127.0.0.1:5003/expendi",
        "chains_file": str(folder / "devnet.toml"),
    }
    (folder / "engines.json").write_text(json.dumps({**engines, "pids": {"stack": pid}}))
    return engines


def test_everything_given_in_production_is_read() -> None:
    read = load({**PRODUCTION, "EXPENDI_PORT": "9000", "HOME": "/root"})
    assert (read.env, read.port, read.database_url) == ("production", 9000, "postgresql://u:p@db/expendi")
    assert read.secret_key.get_secret_value() == SECRET
    assert [seal_key(each.get_secret_value())[0] for each in read.seal_keys] == ["k2", "k1"]
    assert read.chains_file == Path("/etc/expendi/chains.toml")


@pytest.mark.parametrize("missing", sorted(set(PRODUCTION) - {"EXPENDI_ENV"}))
def test_anything_missing_in_production_is_named(missing: str) -> None:
    environ = {name: value for name, value in PRODUCTION.items() if name != missing}
    with pytest.raises(SettingsError, match=f"^{missing} is not set and EXPENDI_ENV is production"):
        load(environ)
    with pytest.raises(SettingsError, match=f"^{missing} is not set"):
        load({**environ, missing: " "})


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("EXPENDI_DATABSE_URL", "did you mean EXPENDI_DATABASE_URL?"),
        ("EXPENDI_port", "did you mean EXPENDI_PORT?"),
        ("EXPENDI_QZX", "remove it"),
    ],
)
def test_an_unknown_name_is_refused_with_advice(name: str, advice: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({**PRODUCTION, name: ""})
    assert str(refused.value).startswith(f"{name} is not a setting: {advice}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EXPENDI_ENV", "staging"),
        ("EXPENDI_LOG_LEVEL", "loud"),
        ("EXPENDI_PORT", "eighty"),
        ("EXPENDI_PORT", "65536"),
        ("EXPENDI_ACCESS_TOKEN_TTL_S", "0"),
        ("EXPENDI_RPC_TIMEOUT_S", "-1"),
        ("EXPENDI_DATABASE_URL", "mysql://u:hunter2@db/x"),
        ("EXPENDI_DATABASE_URL", "postgresql://u:hunter2@db:port/x"),
        ("EXPENDI_REDIS_URL", "hunter2:6379"),
        ("EXPENDI_CLICKHOUSE_URL", "clickhouse://u:hunter2@x"),
        ("EXPENDI_SECRET_KEY", "hunter2"),
        ("EXPENDI_SEAL_KEYS", "hunter2"),
        ("EXPENDI_SEAL_KEYS", "k1:hunter2"),
        ("EXPENDI_SEAL_KEYS", "hunter2 :" + SEAL_KEY),
        ("EXPENDI_SEAL_KEYS", f"hunter2:{SEAL_KEY},hunter2:{SEAL_KEY}"),
        ("EXPENDI_ORIGINS", "*"),
        ("EXPENDI_ORIGINS", "https://a.example/path"),
        ("EXPENDI_ORIGINS", '["https://a.example"'),
        ("EXPENDI_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("EXPENDI_DOMAIN", "https://a.example"),
    ],
)
def test_a_malformed_value_is_refused_by_name_and_never_shown_when_secret(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({**PRODUCTION, name: value})
    sentence = str(refused.value)
    assert sentence.startswith(f"{name} is malformed (")
    assert "hunter2" not in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "written",
    ['["https://a.example", "http://localhost:3000"]', "https://a.example, http://localhost:3000"],
)
def test_a_list_is_json_or_comma_separated(written: str) -> None:
    assert load({**PRODUCTION, "EXPENDI_ORIGINS": written}).origins == ("https://a.example", "http://localhost:3000")


def test_settings_are_frozen_and_show_no_secret() -> None:
    read = load(PRODUCTION)
    with pytest.raises(ValidationError):
        read.port = 1  # type: ignore[misc]  # the refusal is what is tested
    shown = repr(read)
    assert SECRET not in shown
    assert SEAL_KEY not in shown
    assert "u:p@db" not in shown


def test_settings_can_be_made_without_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPENDI_PORT", "1234")
    made = Settings(database_url="postgresql://x/y", redis_url="redis://x", chains_file=Path("chains.toml"))
    assert (made.port, made.queue) == (8080, "redis://x")
    assert Settings(redis_url="redis://x", queue_url="redis://y").queue == "redis://y"


def test_development_without_engines_says_how_to_start_them(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^EXPENDI_DATABASE_URL .* no embedded engines run: start `expendi up`"):
        load({"EXPENDI_DATA_DIR": str(tmp_path)})


def test_development_takes_unset_urls_from_the_running_engines(tmp_path: Path) -> None:
    engines = write_engines(tmp_path, pid=os.getpid())
    read = load({"EXPENDI_DATA_DIR": str(tmp_path), "EXPENDI_REDIS_URL": "redis://mine"})
    assert read.database_url == engines["database_url"]
    assert read.redis_url == "redis://mine"
    assert str(read.chains_file) == engines["chains_file"]


def test_engines_of_a_killed_parent_do_not_count(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    write_engines(tmp_path, pid=gone.pid)
    with pytest.raises(SettingsError, match="no embedded engines run"):
        load({"EXPENDI_DATA_DIR": str(tmp_path)})


def test_an_unreadable_engines_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "engines.json").write_text("{")
    with pytest.raises(SettingsError, match="delete it and start `expendi up` again"):
        load({"EXPENDI_DATA_DIR": str(tmp_path)})


def test_the_development_secret_is_made_once_and_is_private(tmp_path: Path) -> None:
    environ = {**URLS, "EXPENDI_DATA_DIR": str(tmp_path / "new")}
    first, second = load(environ), load(environ)
    assert first.secret_key == second.secret_key
    assert len(first.secret_key.get_secret_value()) >= 32
    assert first.seal_keys == second.seal_keys
    assert len(seal_key(first.seal_keys[0].get_secret_value())[1]) == 32
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["seal_keys", "secret"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()} == {0o600}


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="EXPENDI_DATA_DIR to a folder that is yours"):
        load({**URLS, "EXPENDI_DATA_DIR": str(tmp_path / "file" / "x")})


def test_a_dotenv_file_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(settings.PREFIX):
            monkeypatch.delenv(name)
    lines = [f"{name}={value}" for name, value in URLS.items()]
    (tmp_path / ".env").write_text("\n".join([*lines, "EXPENDI_PORT=1", "EXPENDI_LOG_LEVEL=debug"]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXPENDI_PORT", "2")
    read = load()
    assert (read.port, read.log_level) == (2, "debug")


def test_env_example_equals_the_settings() -> None:
    stale = "run `python -m config.settings > .env.example`"
    assert (ROOT / ".env.example").read_text() == settings.env_example(), stale


def test_every_setting_is_documented_and_its_default_reads_back() -> None:
    lines = settings.env_example().splitlines()
    written = dict(line.removeprefix("#").split("=", 1) for line in lines if line.startswith("#EXPENDI_"))
    assert set(written) == {variable(field) for field in Settings.model_fields}
    assert all(facts.description for facts in Settings.model_fields.values())
    assert settings.load_given(written) == Settings()
