"""Simulated users on the devnet, for tests, load and the demo: `async with Devnet(rpc) as devnet`, then act.

Every action returns its transaction's hash. On a node that mines at once it has also been mined, and a revert raises;
on others it is only sent (`receipt` waits for it). Amounts are base units; the token is the devnet's USDC by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from store.records import Address
from watchers.devnet import actions
from watchers.devnet.actions import ETH, Name, Payment
from watchers.devnet.contracts import Call, Deployment, artifact, create_contracts, creation, deploy_all
from watchers.devnet.person import Person, person, sign_in_message
from watchers.devnet.sending import Reverted, SendingNode

__all__ = ["ETH", "USDC", "ChainBucket", "Devnet", "Payment", "Person", "Reverted", "person", "sign_in_message"]

USDC = 10**6
"""One dollar in base units."""
PURSE = 1_000_000 * USDC
"""What each person owns to begin with, in USDC base units."""
COINS = 10_000 * 10**18
"""Each person's ETH (wei), as anvil gives its own accounts."""


@dataclass(frozen=True, slots=True)
class ChainBucket:
    """A bucket as its contract holds it: raw counters, `last_reset` in seconds of block time."""

    exists: bool
    active: bool
    limit: int
    spent: int
    last_reset: int


class Devnet(SendingNode):
    """A devnet with its contracts and people; without a `deployment` it puts contracts of its own on the chain."""

    def __init__(self, rpc: str, *, deployment: Deployment | None = None) -> None:
        super().__init__(rpc)
        self._deployment = deployment
        self._people: dict[Address, Person] = {}
        self._allowed: set[tuple[Address, Address]] = set()

    async def open(self) -> None:
        """Connect and make sure that the contracts are there."""
        await super().open()
        if self._deployment is None:
            self._deployment = await deploy_all(self)

    @property
    def at(self) -> Deployment:
        """Where the contracts are."""
        if self._deployment is None:
            raise RuntimeError("the devnet is not open: use `async with Devnet(rpc)`")
        return self._deployment

    # ---- people

    async def user(self, index: int) -> Person:
        """The person of a number, with ETH, USDC and an allowance for the standalone wallet; leaves no log."""
        return (await self.users(1, first=index))[0]

    async def users(self, count: int, *, first: int = 1) -> list[Person]:
        """So many persons, from number `first` on (0 is who deployed)."""
        found = [person(first + i) for i in range(count)]
        fresh = [one for one in found if one.address not in self._people]
        self._people.update((one.address, one) for one in fresh)
        await self._fill_purses(fresh)
        return found

    async def wallet_of(self, who: Person) -> Address | None:
        """The wallet that the factory made or registered for a person."""
        call = artifact("WalletFactory").call(self.at.factory, "walletOf", who.address)
        word = await self.view(call)
        return None if int(word, 16) == 0 else "0x" + word[-40:]

    async def usdc_of(self, address: Address) -> int:
        """USDC that an address holds on the chain (base units)."""
        return _words(await self.view(artifact("MockUSDC").call(self.at.usdc, "balanceOf", address)))[0]

    async def bucket_of(self, who: Person, name: Name, *, wallet: Address | None = None) -> ChainBucket:
        """A bucket as the contract holds it now."""
        call = artifact("BudgetWallet").call(wallet or self.at.wallet, "bucketOf", who.address, name)
        exists, active, limit, spent, last_reset = _words(await self.view(call))
        return ChainBucket(bool(exists), bool(active), limit, spent, last_reset)

    async def balance_of(
        self, who: Person, name: Name, *, token: Address | None = None, wallet: Address | None = None
    ) -> int:
        """What a bucket holds of a token on the chain (base units)."""
        coin = token or self.at.usdc
        call = artifact("BudgetWallet").call(wallet or self.at.wallet, "balanceOf", who.address, name, coin)
        return _words(await self.view(call))[0]

    async def unallocated_of(self, who: Person, *, token: Address | None = None, wallet: Address | None = None) -> int:
        """Unallocated funds of a person on the chain (base units)."""
        call = artifact("BudgetWallet").call(
            wallet or self.at.wallet, "unallocated", who.address, token or self.at.usdc
        )
        return _words(await self.view(call))[0]

    # ---- what people do

    async def create_wallet(self, who: Person, *, salt: int = 0) -> str:
        """Have the factory deploy the person's own wallet; `wallet_of` names it."""
        return await self.send(who, actions.create_wallet(self.at.factory, salt=salt))

    async def register_wallet(self, who: Person, wallet: Address) -> str:
        """Tell the factory of an existing wallet as the person's own."""
        return await self.send(who, actions.register_wallet(self.at.factory, wallet=wallet))

    async def create_bucket(self, who: Person, name: Name, limit: int = 0, *, wallet: Address | None = None) -> str:
        """Create a bucket; limit in raw units per rolling 30 days, 0 for none."""
        return await self.send(who, actions.create_bucket(wallet or self.at.wallet, name, limit))

    async def update_bucket(
        self, who: Person, name: Name, limit: int, *, active: bool = True, wallet: Address | None = None
    ) -> str:
        """Change a bucket's limit and activity."""
        return await self.send(who, actions.update_bucket(wallet or self.at.wallet, name, limit, active=active))

    async def deposit(
        self, who: Person, amount: int, *, token: Address | None = None, wallet: Address | None = None
    ) -> str:
        """Pay into the wallet's unallocated funds; allows the wallet to take the tokens first, without a log."""
        target, coin = wallet or self.at.wallet, token or self.at.usdc
        if coin == self.at.usdc:
            await self._allow_once(who.address, target)
        return await self.send(who, actions.deposit(target, amount, token=coin))

    async def fund(
        self, who: Person, name: Name, amount: int, *, token: Address | None = None, wallet: Address | None = None
    ) -> str:
        """Move unallocated funds into a bucket."""
        return await self.send(who, actions.fund(wallet or self.at.wallet, name, amount, token=token or self.at.usdc))

    async def open_bucket(
        self, who: Person, name: Name, *, limit: int = 0, amount: int = 1000 * USDC, wallet: Address | None = None
    ) -> list[str]:
        """Create a bucket with money in it: bucket, deposit and funding, three transactions in this order."""
        return [
            await self.create_bucket(who, name, limit, wallet=wallet),
            await self.deposit(who, amount, wallet=wallet),
            await self.fund(who, name, amount, wallet=wallet),
        ]

    async def spend(
        self,
        who: Person,
        bucket: Name,
        amount: int,
        recipient: Address,
        *,
        delegate: Person | None = None,
        token: Address | None = None,
        wallet: Address | None = None,
    ) -> str:
        """Pay from a person's bucket, sent by the delegate if one is given."""
        payment = Payment(bucket, amount, recipient)
        call = actions.spend(wallet or self.at.wallet, payment, user=who.address, token=token or self.at.usdc)
        return await self.send(delegate or who, call)

    async def batch_spend(
        self,
        who: Person,
        payments: Sequence[Payment],
        *,
        delegate: Person | None = None,
        wallet: Address | None = None,
    ) -> str:
        """Pay many times in one transaction."""
        call = actions.batch_spend(wallet or self.at.wallet, payments, user=who.address, token=self.at.usdc)
        return await self.send(delegate or who, call)

    async def move(self, who: Person, source: Name, target: Name, amount: int, *, wallet: Address | None = None) -> str:
        """Move USDC between two buckets."""
        return await self.send(who, actions.move(wallet or self.at.wallet, source, target, amount, token=self.at.usdc))

    async def add_delegate(self, who: Person, bucket: Name, delegate: Person, *, wallet: Address | None = None) -> str:
        """Let another person spend from a bucket."""
        return await self.send(
            who, actions.delegate(wallet or self.at.wallet, bucket, to=delegate.address, allowed=True)
        )

    async def remove_delegate(
        self, who: Person, bucket: Name, delegate: Person, *, wallet: Address | None = None
    ) -> str:
        """No longer let another person spend from a bucket."""
        return await self.send(
            who, actions.delegate(wallet or self.at.wallet, bucket, to=delegate.address, allowed=False)
        )

    async def withdraw(
        self,
        who: Person,
        amount: int,
        *,
        recipient: Address | None = None,
        token: Address | None = None,
        wallet: Address | None = None,
    ) -> str:
        """Pay out of unallocated funds, to the person unless a recipient is given."""
        call = actions.withdraw(wallet or self.at.wallet, amount, recipient or who.address, token=token or self.at.usdc)
        return await self.send(who, call)

    async def emergency_withdraw(
        self, who: Person, *, token: Address | None = None, wallet: Address | None = None
    ) -> str:
        """Pay the person everything of one token, out of unallocated funds and every bucket."""
        return await self.send(who, actions.emergency_withdraw(wallet or self.at.wallet, token=token or self.at.usdc))

    async def transfer(self, who: Person, recipient: Address, amount: int) -> str:
        """Send USDC from the person's own address; to a wallet contract it strands there."""
        return await self.send(who, actions.transfer(self.at.usdc, recipient, amount))

    async def mint(self, who: Person, recipient: Address, amount: int) -> str:
        """Make USDC out of nothing for a recipient, with a Transfer log."""
        return await self.send(who, actions.mint(self.at.usdc, recipient, amount))

    # ---- investments

    async def invest(self, who: Person, amount: int, *, owner: Person | None = None) -> str:
        """Put USDC into the vault, for the person's own shares or another's."""
        await self._allow_once(who.address, self.at.vault)
        return await self.act(who, "MockVault", self.at.vault, "deposit", amount, (owner or who).address)

    async def redeem(self, who: Person, shares: int) -> str:
        """Take shares out of the vault, at its price."""
        return await self.act(who, "MockVault", self.at.vault, "redeem", shares, who.address, who.address)

    async def hand_over(self, who: Person, recipient: Address, shares: int) -> str:
        """Send shares of the vault to someone."""
        return await self.act(who, "MockVault", self.at.vault, "transfer", recipient, shares)

    async def set_share_price(self, price: int) -> str:
        """Set what a share of the vault is worth: assets per share, 18 decimals."""
        return await self.act(person(0), "MockVault", self.at.vault, "setSharePrice", price)

    async def lock_up(self, who: Person, amount: int, *, unlock_time: int, label: Name = "") -> str:
        """Put USDC under the yield lock until a time (s since 1970)."""
        await self._allow_once(who.address, self.at.lock)
        return await self.act(who, "MockYieldLock", self.at.lock, "lock", self.at.vault, amount, unlock_time, label)

    async def unlock(self, who: Person, lock_id: int) -> str:
        """Take what lies under a lock whose time has come."""
        return await self.act(who, "MockYieldLock", self.at.lock, "withdraw", lock_id)

    async def shares_of(self, address: Address) -> int:
        """Shares of the vault that an address holds on the chain."""
        return _words(await self.view(artifact("MockVault").call(self.at.vault, "balanceOf", address)))[0]

    async def worth(self, shares: int) -> int:
        """What the vault says that shares are worth now (base units)."""
        return _words(await self.view(artifact("MockVault").call(self.at.vault, "convertToAssets", shares)))[0]

    async def accrued(self, lock_id: int) -> tuple[int, int]:
        """A lock's yield and current assets, as its contract says now (base units)."""
        call = artifact("MockYieldLock").call(self.at.lock, "getAccruedYield", lock_id)
        accrued, assets = _words(await self.view(call))
        return accrued, assets

    # ---- any contract

    async def create(self, name: str, *args: Any) -> Address:
        """Create a contract of ours by its name (Impostor, MockVault, …); return its address."""
        placed = await create_contracts(self, (await self.user(0)).address, [creation(name, *args)])
        self.forget_nonces()  # the node used one of person 0
        return placed[0][0]

    async def act(self, who: Person, contract: str, to: Address, function: str, *args: Any, value: int = 0) -> str:
        """Call any function of a contract of ours, by its name, at an address."""
        return await self.send(who, artifact(contract).call(to, function, *args, value=value, gas=1_000_000))

    async def view(self, call: Call) -> str:
        """Run a call without a transaction; return its result as hex."""
        return str(await self.rpc_call("eth_call", {"to": call.to, "data": call.calldata}, "latest"))

    # ---- the chain goes back

    async def reorg(self, depth: int, *, txs: Sequence[tuple[str | dict[str, Any], int]] = ()) -> int:
        """Replace the newest blocks as Node.reorg does; people keep ETH and allowances that were given in them."""
        newest = await super().reorg(depth, txs=txs)
        await self._refill()
        return newest

    async def revert(self, snapshot: str) -> int:
        """Go back to a snapshot as Node.revert does; people keep ETH and allowances that were given since."""
        newest = await super().revert(snapshot)
        await self._refill()
        return newest

    async def _refill(self) -> None:
        await self._fill_purses(list(self._people.values()))
        await self._allow(sorted(self._allowed))

    async def _fill_purses(self, people: Sequence[Person]) -> None:
        """Write ETH and USDC of people into the state: no transaction, no log, so that nothing is told about it.

        Who has an allowance on this chain already got a purse, maybe from another process, and keeps what is left.
        """
        slots = [actions.allowance_slot(one.address, self.at.wallet) for one in people]
        words = await self.rpc_batch([("eth_getStorageAt", (self.at.usdc, slot, "latest")) for slot in slots])
        new = [one for one, word in zip(people, words, strict=True) if int(word, 16) == 0]
        coins = [("anvil_setBalance", (one.address, hex(COINS))) for one in new]
        slots = [actions.balance_slot(one.address) for one in new]
        purses = [("anvil_setStorageAt", (self.at.usdc, slot, actions.word(PURSE))) for slot in slots]
        await self.rpc_batch([*coins, *purses])
        await self._allow([(one.address, self.at.wallet) for one in new])

    async def _allow_once(self, owner: Address, spender: Address) -> None:
        if (owner, spender) not in self._allowed:
            await self._allow([(owner, spender)])

    async def _allow(self, pairs: Sequence[tuple[Address, Address]]) -> None:
        """Let wallets take USDC of people, as (owner, wallet) pairs."""
        slots = [actions.allowance_slot(owner, wallet) for owner, wallet in pairs]
        endless = actions.word(actions.MAX_UINT256)
        await self.rpc_batch([("anvil_setStorageAt", (self.at.usdc, slot, endless)) for slot in slots])
        self._allowed.update(pairs)


def _words(result: str) -> list[int]:
    """The 32-byte words of a call's result as numbers."""
    raw = bytes.fromhex(result.removeprefix("0x"))
    return [int.from_bytes(raw[at : at + 32], "big") for at in range(0, len(raw), 32)]
