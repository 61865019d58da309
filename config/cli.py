"""The `expendi` command: starts engines and processes, and stops them. Every verb of the product itself is a child."""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from config import doctor as doctors
from config import settings as config
from config.embedded import children
from config.embedded.children import Launch
from config.embedded.engine import EngineError
from config.embedded.fcm import Fcm
from config.embedded.stack import Stack
from config.logs import scrub
from config.procfile import Processes
from config.settings import Settings, SettingsError, variable

_TICK_S = 0.2
_READY_S = 60
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INSISTING_S = 1.0
"""A second signal this much later than the first ends us at once; sooner, it is the same one sent by a parent too."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Expendi's realtime backend on this machine: engines, migrations, processes and the demo.",
)


class Failed(Exception):
    """A step did not work; the message says which and where to look."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Stopped(BaseException):
    """Someone asked us to stop. Not an Exception: nothing on the way may mistake it for an error."""


@app.command()
def up(
    processes: Annotated[bool, typer.Option("--processes", help="Run the Procfile's processes too.")] = False,
) -> None:
    """Start the engines that no url is set for, migrate, deploy the devnet; stay until Ctrl-C."""
    with _stopping(), _engines(_development()) as stack:
        env = _prepared(stack)
        if processes:
            _serve(stack, env)
        typer.echo("Ready. Ctrl-C stops everything.")
        _stay(stack, None)


@app.command()
def run() -> None:
    """Run every process of the Procfile, with the engines they need, until Ctrl-C."""
    given = config.load_given()
    with _stopping():
        if given.env == "production" or _complete(given) or config.running_engines(given.data_dir):
            config.load()  # says now, in one sentence, what the children would say four times
            env = _environment(given)
            _child("store", "migrate", env=env)
            _serve(None, env)
        else:
            with _engines(given) as stack:
                _serve(stack, _prepared(stack))


@app.command()
def demo(
    check: Annotated[bool, typer.Option("--check", help="Headless: run the script once and check it.")] = False,
) -> None:
    """Show one user's live feed on a chain, databases and processes of its own; nothing of yours is touched."""
    given = _development()
    settings = Settings(data_dir=given.data_dir.absolute() / "demo", log_level=given.log_level)
    with _stopping(code=130), _engines(settings, fresh=True) as stack, Fcm(stack.data_dir) as phones:
        env = {**_environment(settings), **_isolated(stack), **_pushing(phones)}
        _prepare(stack, env)
        with _running(Processes(env=env, logs=stack.data_dir / "logs")) as running:
            _until_ready(f"http://{settings.host}:{env[variable('port')]}/readyz", running)
            code = _beside(running, "watchers.devnet", "demo", *(["--check"] if check else []), env=env)
    raise typer.Exit(code)


@app.command()
def migrate() -> None:
    """Bring PostgreSQL and ClickHouse to the newest schema."""
    with _stopping():
        _child("store", "migrate", env=_environment(config.load()))


@app.command()
def doctor() -> None:
    """Name each engine, its version and whether it answers; exit 1 when one does not."""
    with _stopping():
        try:
            findings = doctors.examine(_environment(config.load()))
        except SettingsError as error:
            typer.echo(doctors.Finding("settings", ok=False, advice=str(error)))
            findings = doctors.programs()
            failed = True
        else:
            failed = False
        for finding in findings:
            typer.echo(finding)
            failed = failed or not finding.ok
    raise typer.Exit(int(failed))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def backfill(context: typer.Context) -> None:
    """Read a range of blocks again; `expendi backfill --help` lists its options."""
    asks_help = "--help" in context.args
    env = _environment(config.load_given() if asks_help else config.load())
    with _stopping():
        _child("watchers", "backfill", *context.args, env=env)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def analytics(context: typer.Context) -> None:
    """Make ClickHouse's tables again from PostgreSQL; `expendi analytics rebuild --help` lists its options."""
    asks_help = "--help" in context.args or not context.args
    env = _environment(config.load_given() if asks_help else config.load())
    with _stopping():
        _child("jobs.analytics", *(context.args or ["--help"]), env=env)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def search(context: typer.Context) -> None:
    """Make the search index again: after a new seal key, or for a past from before it."""
    _rebuild("search", context)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def embeddings(context: typer.Context) -> None:
    """Read with the model that the settings name what it has not read, for search by meaning."""
    _rebuild("embeddings", context)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def leaderboards(context: typer.Context) -> None:
    """Make the standings of challenges in Redis again, or check them; `expendi leaderboards --help` says how."""
    asks_help = "--help" in context.args or not context.args
    env = _environment(config.load_given() if asks_help else config.load())
    with _stopping():
        _child("jobs.standings", *(context.args or ["--help"]), env=env)


def _rebuild(what: str, context: typer.Context) -> None:
    asks_help = "--help" in context.args or not context.args
    env = _environment(config.load_given() if asks_help else config.load())
    with _stopping():
        _child("jobs.rebuild", what, *(context.args or ["--help"]), env=env)


def _development() -> Settings:
    settings = config.load_given()
    if settings.env == "production":
        raise Failed(f"{variable('env')} is production: embedded engines are for development only.")
    return settings


def _complete(settings: Settings) -> bool:
    return all(getattr(settings, field) for field in config.EMBEDDED)


@contextmanager
def _stopping(*, code: int = 0) -> Iterator[None]:
    """Stop everything within on the first signal and exit with `code`.

    On a second one leave at once: the kernel then ends our children.
    """
    first_at: list[float] = []

    def stop(_signal: int, _frame: FrameType | None) -> None:
        if first_at:
            if time.monotonic() - first_at[0] > _INSISTING_S:
                os._exit(130)
            return
        first_at.append(time.monotonic())
        raise Stopped

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    except Stopped:
        raise typer.Exit(code) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _engines(settings: Settings, *, fresh: bool = False) -> Iterator[Stack]:
    typer.echo(f"Starting engines in {settings.data_dir.absolute()} …")
    with Stack(settings, fresh=fresh) as stack:
        try:
            yield stack
        finally:
            if not fresh:  # the demo ends with its verdict
                typer.echo("Stopping …")


@contextmanager
def _running(processes: Processes) -> Iterator[Processes]:
    try:
        processes.start()
        yield processes
    finally:
        processes.stop()


def _environment(settings: Settings) -> dict[str, str]:
    """What children get: our environment, the data folder whatever their directory, and our interpreter first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    folder = {variable("data_dir"): str(settings.data_dir.absolute())}
    return {**os.environ, **folder, "PATH": path, "PYTHONUNBUFFERED": "1"}


def _isolated(stack: Stack) -> dict[str, str]:
    """Every setting, so that neither our environment nor a `.env` file points the demo at engines of yours."""
    ours = {
        **stack.urls,
        "data_dir": str(stack.data_dir),
        "log_level": stack.settings.log_level,
        "port": str(children.free_port()),
    }
    return {variable(field): ours.get(field, "") for field in Settings.model_fields}


def _pushing(phones: Fcm) -> dict[str, str]:
    """Push to the fake provider, at once: no client of the demo says what it shows, so none would hold a push back."""
    said = {"fcm_url": phones.url, "fcm_credentials": str(phones.credentials), "push_hold_s": "0"}
    return {variable(field): value for field, value in said.items()}


def _prepared(stack: Stack) -> dict[str, str]:
    env = _environment(stack.settings)
    _prepare(stack, env)
    for name, url in stack.urls.items():
        typer.echo(f"{variable(name):<24}{scrub(url)}")
    if stack.devnet:
        typer.echo(f"{'devnet':<24}{stack.devnet.rpc}  {stack.devnet.ws}  chain id {stack.devnet.chain_id}")
    return env


def _prepare(stack: Stack, env: Mapping[str, str]) -> None:
    _child("store", "migrate", env=env)
    if stack.devnet:
        nodes = ["--rpc", stack.devnet.rpc, "--ws", stack.devnet.ws]
        _child("watchers.devnet", "deploy", *nodes, "--out", str(stack.chains_file), env=env)


def _child(module: str, *arguments: str, env: Mapping[str, str]) -> None:
    """Run one of our modules to its end; raise Failed with its exit code when that is not 0."""
    child = children.spawn(Launch(children.python(module, *arguments), env=env))
    try:
        code = child.wait()
    finally:
        children.end(child)
    if code:
        raise Failed(f"`python -m {module} {arguments[0]}` failed with exit code {code}.", code=code)


def _beside(running: Processes, module: str, *arguments: str, env: Mapping[str, str]) -> int:
    """Run a module while the processes run, and return its exit code; raise Failed when one of them ends first."""
    child = children.spawn(Launch(children.python(module, *arguments), env=env))
    try:
        while child.poll() is None:
            _refuse_ended(running)
            time.sleep(_TICK_S)
        _refuse_ended(running)
        return child.returncode
    finally:
        children.end(child)


def _until_ready(url: str, running: Processes) -> None:
    def ready() -> bool:
        _refuse_ended(running)
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own http url
                return bool(answer.status == 200)
        except OSError:
            return False

    if not children.until(ready, timeout_s=_READY_S):
        raise Failed(f"{url} is not ready after {_READY_S} s; see {running.log('web')}.")


def _refuse_ended(running: Processes) -> None:
    if sentence := running.ended():
        raise Failed(sentence)


def _serve(stack: Stack | None, env: Mapping[str, str]) -> None:
    with _running(Processes(env=env)) as running:
        typer.echo("Running the Procfile. Ctrl-C stops everything.")
        _stay(stack, running)


def _stay(stack: Stack | None, running: Processes | None) -> None:
    """Tend engines and watch processes until someone stops us, which raises Stopped."""
    while True:
        for sentence in stack.tend() if stack else []:
            typer.echo(sentence)
        if running:
            _refuse_ended(running)
        time.sleep(_TICK_S)


def main() -> None:
    """Run the command line; every mistake is one sentence on standard error."""
    try:
        app()
    except (SettingsError, EngineError, Failed, OSError) as error:
        typer.echo(f"expendi: {error}", err=True)
        sys.exit(getattr(error, "code", 1))


if __name__ == "__main__":
    main()
