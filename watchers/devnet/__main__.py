"""`python -m watchers.devnet deploy | drive | demo`: contracts onto a chain, users who spend, and the demo."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path

from config import settings
from config.chains import ChainTableError
from watchers.devnet import demo
from watchers.devnet.drive import drive, gather_crowd
from watchers.devnet.node import NodeError
from watchers.devnet.people import Devnet
from watchers.devnet.table import deploy_to_table, deployment, devnet_row


def main() -> int:
    """Run one verb; return the exit code."""
    args = _parser().parse_args()
    try:
        return asyncio.run(_until_stopped(args.run(args)))
    except KeyboardInterrupt:
        return 0
    except (settings.SettingsError, ChainTableError, LookupError, NodeError, OSError) as error:
        print(f"watchers.devnet: {error}", file=sys.stderr)
        return 1


async def _until_stopped(work: Coroutine[None, None, int]) -> int:
    """Run the verb; SIGTERM ends it as Ctrl-C does, with everything closed."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return 0


async def _deploy(args: argparse.Namespace) -> int:
    found = await deploy_to_table(args.rpc, args.out, ws=args.ws, first_block=args.first_block)
    print(f"devnet: chain {found.chain_id}, wallet {found.wallet}, factory {found.factory}, USDC {found.usdc}")
    return 0


async def _drive(args: argparse.Namespace) -> int:
    chain = devnet_row(_table(args))
    async with Devnet(chain.rpc[0], deployment=deployment(chain)) as devnet:
        crowd = await gather_crowd(devnet, args.users, seed=args.seed)
        await drive(crowd, rate_per_s=args.rate)
    return 0


async def _demo(args: argparse.Namespace) -> int:
    known = None if args.web and args.chains and args.domain and args.phones else settings.load()
    web = args.web or (f"http://{known.host}:{known.port}" if known else "")
    domain = args.domain or (known.domain if known else "localhost")
    phones = args.phones or (known.fcm_url if known else "")
    if not phones:
        raise LookupError("which phones? Name the fake push provider with --phones, as `expendi demo` does")
    stage = demo.Stage(web=web, phones=phones, domain=domain, chain=devnet_row(_table(args)))
    return await demo.run(stage, check=args.check)


def _table(args: argparse.Namespace) -> Path:
    if args.chains:
        return Path(args.chains)
    table = settings.load().chains_file
    if table is None:
        raise LookupError("which devnet? Name its chain table with --chains, or start `expendi up`")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m watchers.devnet", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("deploy", help="put the contracts on a chain and write its chain table")
    one.add_argument("--rpc", required=True, help="HTTP url of the node")
    one.add_argument("--ws", help="websocket url of the node, for the table")
    one.add_argument("--out", required=True, type=Path, help="the chain table to write")
    one.add_argument("--first-block", type=int, help="block to follow from; default: that of the first contract")
    one.set_defaults(run=_deploy)
    one = verbs.add_parser("drive", help="let users spend until stopped")
    one.add_argument("--rate", type=float, default=2.0, help="actions per second, all users together")
    one.add_argument("--users", type=int, default=5)
    one.add_argument("--seed", type=int, default=1, help="repeats the same choices")
    one.add_argument("--chains", help="chain table; default: that of the running engines")
    one.set_defaults(run=_drive)
    one = verbs.add_parser(
        "demo", help="one user's live feed, with an alert, a cut and a reorg; checks that nothing is lost"
    )
    one.add_argument("--web", help="url of the web process; default: from the settings")
    one.add_argument("--phones", help="url of the fake push provider; default: from the settings")
    one.add_argument("--domain", help="domain that the sign-in message names; default: from the settings")
    one.add_argument("--chains", help="chain table; default: that of the running engines")
    one.add_argument("--check", action="store_true", help="headless: run the script once, then exit")
    one.set_defaults(run=_demo)
    return parser


if __name__ == "__main__":
    sys.exit(main())
