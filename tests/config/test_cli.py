"""The `expendi` command with real engines and stubs for the product: what it starts, in what order, what it leaves.

The stubs stand in the working directory, where `python -m` looks first.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from config import cli, settings
from config.embedded import children
from config.embedded.children import Launch
from config.settings import alive
from tests.config.family import family

STUB = """
import http.server, json, os, pathlib, signal, sys, time
name, verbs = pathlib.Path(__file__).parent.name, sys.argv[1:]
name = "watchers.devnet" if name == "devnet" else name
ours = {key: value for key, value in os.environ.items() if key.startswith("EXPENDI_")}
def tell(*verbs):
    with open(os.environ["STUB_CALLS"], "a") as calls:
        calls.write(json.dumps({"name": name, "verbs": verbs, "pid": os.getpid(), "env": ours}) + "\\n")
def stop(*_):
    tell("stops", *verbs)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
def started():  # processes that have spoken since the demo's contracts were deployed
    return pathlib.Path(os.environ["STUB_CALLS"]).read_text().rpartition('"deploy"')[2].count("\\n") - 1
if verbs[:1] == ["demo"]:  # the script waits for web alone, which may be up before the others have spoken
    deadline = time.monotonic() + 20
    while started() < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
tell(*verbs)
code = os.environ.get("STUB_EXIT_" + "_".join([name.rpartition(".")[2], *verbs[:1]]))
if code is not None:
    sys.exit(int(code))
if verbs[:1] == ["doctor"]:
    print("starting", file=sys.stderr)
    print(json.dumps({"name": name, "url": "redis://:hunter2@x/0", "version": "9.1", "ok": True, "advice": ""}))
elif verbs[:1] == ["deploy"]:
    pathlib.Path(verbs[verbs.index("--out") + 1]).write_text("deployed")
elif name == "realtime":
    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/readyz" else 404)
            self.end_headers()
    http.server.HTTPServer(("127.0.0.1", int(os.environ.get("EXPENDI_PORT") or 0)), Ready).serve_forever()
elif name in ("watchers", "jobs") and verbs[:1] != ["backfill"] or verbs[:1] == ["demo"]:
    time.sleep(600)
"""


@dataclass
class Project:
    """A working directory with stubs, and the environment in which `expendi` runs there."""

    folder: Path
    env: dict[str, str]

    @property
    def data_dir(self) -> Path:
        return self.folder / ".expendi"

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        launch = Launch(children.python("config.cli", *arguments), cwd=self.folder, env={**self.env, **env})
        return children.spawn(launch, output=subprocess.PIPE)

    def run(self, *arguments: str, **env: str) -> tuple[int, str]:
        with self.start(*arguments, **env) as command:
            try:
                said, _ = command.communicate(timeout=30)
            finally:
                children.kill(command)
        return command.returncode, said.decode()

    def calls(self) -> list[dict[str, Any]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def spoken(self) -> list[str]:
        return [" ".join([call["name"], *call["verbs"][:1]]) for call in self.calls()]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return made(tmp_path)


def made(folder: Path) -> Project:
    for package in ("store", "watchers", "watchers/devnet", "realtime", "jobs", "jobs/analytics", "jobs/standings"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
        (folder / package / "__main__.py").write_text(STUB)
    env = {name: value for name, value in os.environ.items() if not name.startswith("EXPENDI_")}
    return Project(folder, {**env, "STUB_CALLS": str(folder / "calls")})


def until_says(command: subprocess.Popen[bytes], word: str) -> str:
    assert command.stdout is not None
    said = ""
    for line in command.stdout:
        said += line.decode()
        if word in said:
            return said
    raise AssertionError(f"{word!r} was never said:\n{said}")


def ended(pids: set[int]) -> bool:
    return children.until(lambda: not any(map(alive, pids)), timeout_s=10)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, str, set[int]]]:
    """A project in which `expendi up` runs; afterwards Ctrl-C must end it cleanly and whole."""
    project = made(tmp_path_factory.mktemp("project"))
    with project.start("up") as command:
        said = until_says(command, "Ready")
        below = family(command.pid)
        yield project, said, below
        command.send_signal(signal.SIGINT)
        assert command.wait(10) == 0
    assert ended(below)
    assert not (project.data_dir / settings.ENGINES_FILE).exists()
    assert (project.data_dir / "postgres" / "PG_VERSION").exists()


def test_up_migrates_then_deploys_and_says_where_everything_is(running: tuple[Project, str, set[int]]) -> None:
    project, said, _ = running
    assert project.spoken()[:2] == ["store migrate", "watchers.devnet deploy"]
    engines = json.loads((project.data_dir / settings.ENGINES_FILE).read_text())
    for field in settings.EMBEDDED:
        assert re.search(rf"EXPENDI_{field.upper()} +{re.escape(engines[field])}\n", said)
    deploy = project.calls()[1]["verbs"]
    assert deploy == ["deploy", "--rpc", engines["rpc"], "--ws", engines["ws"], "--out", engines["chains_file"]]
    assert project.calls()[0]["env"]["EXPENDI_DATA_DIR"] == str(project.data_dir)


def test_a_second_up_is_refused_and_disturbs_nothing(running: tuple[Project, str, set[int]]) -> None:
    project, _, below = running
    code, said = project.run("up")
    assert code == 1
    assert re.search(r"expendi: process \d+ already runs the engines of .*: use those, stop it, or set", said)
    assert all(map(alive, below))


def test_other_verbs_use_the_running_engines(running: tuple[Project, str, set[int]]) -> None:
    project, _, _ = running
    assert project.run("migrate") == (0, "")
    code, _ = project.run("migrate", STUB_EXIT_store_migrate="3")
    assert code == 3
    assert project.run("backfill", "--chain", "31337", "--help")[0] == 0
    assert project.calls()[-1]["verbs"] == ["backfill", "--chain", "31337", "--help"]
    assert project.run("analytics", "rebuild", "--help")[0] == 0
    assert project.calls()[-1]["verbs"] == ["rebuild", "--help"]
    assert project.run("leaderboards", "check", "--challenge", "1")[0] == 0
    assert project.calls()[-1]["verbs"] == ["check", "--challenge", "1"]


def test_doctor_names_what_answers_without_passwords(running: tuple[Project, str, set[int]]) -> None:
    project, _, _ = running
    code, said = project.run("doctor")
    assert code == 0, said
    assert re.search(r"^ok    store +9\.1 +redis://:\*\*\*@x/0$", said, re.MULTILINE)
    assert {line.split()[1] for line in said.splitlines()} == {"store", "watchers", "node", "npm", "anvil"}
    code, said = project.run("doctor", STUB_EXIT_watchers_doctor="1")
    assert code == 1
    assert "FAIL  watchers" in said


def test_the_demo_runs_beside_up_on_engines_of_its_own(running: tuple[Project, str, set[int]]) -> None:
    project, _, below = running
    (project.folder / ".env").write_text("EXPENDI_QUEUE_URL=redis://yours\nEXPENDI_ORIGINS=https://yours.example\n")
    before = len(project.calls())
    code, said = project.run("demo", "--check", EXPENDI_CLICKHOUSE_URL="http://yours/x", STUB_EXIT_devnet_demo="0")
    assert code == 0, said
    calls = project.calls()[before:]
    assert [call["name"] for call in calls[:2]] == ["store", "watchers.devnet"]
    assert sorted(call["name"] for call in calls[2:6]) == ["jobs", "jobs", "realtime", "watchers"]
    [demo] = [call for call in calls if call["verbs"] == ["demo", "--check"]]
    env = demo["env"]
    assert "yours" not in json.dumps(env)
    assert (env["EXPENDI_QUEUE_URL"], env["EXPENDI_ORIGINS"]) == ("", "")  # set, so that .env has no say
    assert env["EXPENDI_CHAINS_FILE"] == str(project.data_dir / "demo" / "devnet.toml")
    [quick] = [call["env"] for call in calls if call["verbs"] == ["quick"]]
    assert env["EXPENDI_FCM_URL"] == quick["EXPENDI_FCM_URL"]
    assert quick["EXPENDI_FCM_URL"].startswith("http://127.0.0.1:")
    assert Path(quick["EXPENDI_FCM_CREDENTIALS"]).is_relative_to(project.data_dir / "demo")
    assert quick["EXPENDI_PUSH_HOLD_S"] == "0"
    assert ended({call["pid"] for call in calls})
    assert all(map(alive, below))
    (project.folder / ".env").unlink()


def test_the_demo_returns_the_exit_code_of_its_script_and_runs_again(project: Project) -> None:
    for code in ("1", "0"):
        assert project.run("demo", STUB_EXIT_devnet_demo=code)[0] == int(code)
    assert project.spoken().count("watchers.devnet deploy") == 2


def test_a_demo_whose_process_ends_says_which_and_stops(project: Project) -> None:
    code, said = project.run("demo", STUB_EXIT_jobs_slow="4")
    assert code == 1
    assert re.search(r"expendi: slow ended by itself with exit code 4; see .*/demo/logs/slow\.log\.", said)
    assert ended({call["pid"] for call in project.calls()})


def test_a_migration_that_fails_stops_everything(project: Project) -> None:
    code, said = project.run("up", STUB_EXIT_store_migrate="7")
    assert code == 7
    assert "expendi: `python -m store migrate` failed with exit code 7." in said
    assert not (project.data_dir / settings.ENGINES_FILE).exists()


def test_run_serves_with_engines_until_it_is_terminated(project: Project) -> None:
    with project.start("run") as command:
        assert children.until(lambda: len(project.calls()) == 6, timeout_s=30), project.calls()
        below = family(command.pid)
        assert {call["pid"] for call in project.calls()[2:]} < below
        command.send_signal(signal.SIGTERM)
        assert command.wait(10) == 0
    assert ended(below)
    said = [" ".join([call["name"], *call["verbs"]]) for call in project.calls()[6:]]
    assert said == ["jobs stops slow", "jobs stops quick", "watchers stops", "realtime stops"]


def test_nothing_outlives_a_killed_command_and_the_folder_is_free_at_once(project: Project) -> None:
    with project.start("up", "--processes") as command:
        assert children.until(lambda: len(project.calls()) == 6, timeout_s=30), project.calls()
        below = family(command.pid) - {command.pid}
        assert len(below) > 8  # four engines, PostgreSQL's own processes, four of the Procfile
        command.kill()
    with project.start("up") as again:
        until_says(again, "Ready")
        assert not any(map(alive, below))
        again.send_signal(signal.SIGINT)
        assert again.wait(10) == 0


@pytest.mark.parametrize(
    ("arguments", "env", "sentence"),
    [
        (["up"], {"EXPENDI_PRT": "1"}, "expendi: EXPENDI_PRT is not a setting: did you mean EXPENDI_PORT?"),
        (["up"], {"EXPENDI_ENV": "production"}, "expendi: EXPENDI_ENV is production: embedded engines are for"),
        (["migrate"], {}, "expendi: EXPENDI_DATABASE_URL is not set and no embedded engines run: start `expendi up`"),
        (["run"], {"EXPENDI_ENV": "production"}, "expendi: EXPENDI_DATABASE_URL is not set and EXPENDI_ENV is prod"),
        (["doctor"], {}, "FAIL  settings"),
    ],
)
def test_a_mistake_is_one_sentence(project: Project, arguments: list[str], env: dict[str, str], sentence: str) -> None:
    code, said = project.run(*arguments, **env)
    assert code == 1
    assert said.startswith(sentence)
    assert "Traceback" not in said
    assert project.calls() == []


@pytest.mark.parametrize("verb", ["up", "run", "demo", "migrate", "doctor"])
def test_every_verb_explains_itself(verb: str) -> None:
    explained = CliRunner().invoke(cli.app, [verb, "--help"])
    assert explained.exit_code == 0
    assert "--help" in explained.output
