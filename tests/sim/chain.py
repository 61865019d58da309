"""The chain of a run: people and what they do, encoded as contracts say it and kept as events for the recomputation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from config import abi
from handlers import chain_events as ce
from handlers.chain_events import ChainEvent, DecodedBlock
from tests.factories import make_address, make_hash
from tests.watchers.node import GENESIS_TIME, FakeBlock
from tests.watchers.said import ETH, FACTORY, SHOP, USDC, WALLET, Said, Tx, say

NAMES = (b"food", b"rent", "caf\u00e9".encode())
DAY_S = 86_400
HELD = 1_000_000
"""What everybody holds at their own address before the first block (base units)."""


@dataclass(frozen=True)
class Deed(Tx):
    """A transaction with the events that its logs say."""

    events: tuple[ChainEvent, ...] = ()


@dataclass(frozen=True)
class TimedBlock(FakeBlock):
    """A block whose time is its own: months pass."""

    at: int = GENESIS_TIME

    @property
    def time(self) -> int:
        return self.at


def deed(*events: ChainEvent, sender: str, salt: str) -> Deed:
    emitters = [event.emitter for event in events if not isinstance(event, ce.TokenTransfer)]
    return Deed(tuple(map(encoded, events)), sender, (emitters or [events[0].emitter])[0], salt=salt, events=events)


def encoded(event: ChainEvent) -> Said:
    """The log that says an event."""
    at = event.emitter
    match event:
        case ce.TokenTransfer():
            return say(at, abi.TRANSFER, (event.sender, event.recipient), uint256=event.amount)
        case ce.WalletCreated():
            return say(at, abi.WALLET_CREATED, (event.user, event.wallet), uint256=event.salt)
        case ce.BucketCreated():
            return say(at, abi.BUCKET_CREATED, (event.user,), bytes=event.name, uint256=event.monthly_limit)
        case ce.BucketUpdated():
            return say(
                at, abi.BUCKET_UPDATED, (event.user,), bytes=event.name, uint256=event.new_limit, bool=event.active
            )
        case ce.FundsDeposited():
            return say(at, abi.FUNDS_DEPOSITED, (event.user,), uint256=event.amount, address=event.token)
        case ce.BucketFunded():
            return say(
                at, abi.BUCKET_FUNDED, (event.user,), bytes=event.name, uint256=event.amount, address=event.token
            )
        case ce.SpentFromBucket():
            return say(
                at,
                abi.SPENT_FROM_BUCKET,
                (event.user,),
                bytes=event.name,
                uint256=event.amount,
                address=event.recipient,
                address_2=event.token,
            )
        case ce.BucketTransfer():
            return say(
                at,
                abi.BUCKET_TRANSFER,
                (event.user,),
                bytes=event.from_name,
                bytes_2=event.to_name,
                uint256=event.amount,
                address=event.token,
            )
        case ce.UnallocatedWithdraw():
            return say(
                at,
                abi.UNALLOCATED_WITHDRAW,
                (event.user,),
                address=event.token,
                uint256=event.amount,
                address_2=event.recipient,
            )
        case ce.EmergencyWithdraw():
            return say(at, abi.EMERGENCY_WITHDRAW, (event.user,), address=event.token, uint256=event.amount)
        case ce.DelegateAdded() | ce.DelegateRemoved():
            topic = abi.DELEGATE_ADDED if isinstance(event, ce.DelegateAdded) else abi.DELEGATE_REMOVED
            return say(at, topic, (event.user, event.delegate), bytes=event.name)
    raise AssertionError(event)


def at(emitter: str = WALLET) -> dict[str, object]:
    return {"tx_hash": "", "n": 0, "log_index": 0, "emitter": emitter}


def pays(sender: str, recipient: str, amount: int) -> ce.TokenTransfer:
    return ce.TokenTransfer(**at(USDC), sender=sender, recipient=recipient, amount=amount)  # type: ignore[arg-type]  # a place


@dataclass
class Story:
    """Draws what people do."""

    draw: random.Random
    people: Sequence[str]
    salts: int = 0
    homes: dict[str, str] = field(default_factory=dict)
    """Wallets of people's own, that a factory deploys."""

    def txs(self, most: int) -> list[Deed]:
        return [self._tx() for _ in range(self.draw.randint(0, most))]

    def _tx(self) -> Deed:
        self.salts += 1
        user = self.draw.choice(self.people)
        events = [event for _ in range(self.draw.choice((1, 1, 1, 2, 4))) for event in self._deeds(user)]
        sender = user if self.draw.random() < 0.7 else self.draw.choice(self.people)
        return deed(*events, sender=sender, salt=str(self.salts))

    def _deeds(self, user: str) -> list[ChainEvent]:
        draw = self.draw
        other, name, amount = draw.choice(self.people), draw.choice(NAMES), draw.randint(0, 1000)
        token = draw.choice((USDC, USDC, ETH))
        home = self.homes.get(user)
        wallet = home if home is not None and draw.random() < 0.4 else WALLET
        place = {**at(wallet), "user": user}
        kinds = ("deposit", "fund", "spend", "spend", "pay", "create", "update", "move", "withdraw", "empty")
        match draw.choice((*kinds, "delegate", "home", "strand")):
            case "deposit":
                event = ce.FundsDeposited(**place, amount=amount, token=token)  # type: ignore[arg-type]  # a place
                return [pays(user, wallet, amount), event] if token == USDC else [event]
            case "fund":
                return [ce.BucketFunded(**place, name=name, amount=amount, token=token)]  # type: ignore[arg-type]  # a place
            case "spend":
                to = other if other != user else SHOP
                spent = ce.SpentFromBucket(
                    **place, name=name, amount=amount, recipient=to, token=token, spender=None  # type: ignore[arg-type]  # a place
                )  # fmt: skip
                return [pays(wallet, to, amount), spent] if token == USDC else [spent]
            case "pay":
                return [pays(user, other, amount)]
            case "create":
                return [ce.BucketCreated(**place, name=name, monthly_limit=amount)]  # type: ignore[arg-type]  # a place
            case "update":
                active = draw.random() < 0.5
                return [ce.BucketUpdated(**place, name=name, new_limit=amount, active=active)]  # type: ignore[arg-type]  # a place
            case "move":
                to_name = draw.choice(NAMES)
                return [
                    ce.BucketTransfer(**place, from_name=name, to_name=to_name, amount=amount, token=token)  # type: ignore[arg-type]  # a place
                ]
            case "withdraw":
                out = ce.UnallocatedWithdraw(**place, token=token, amount=amount, recipient=user)  # type: ignore[arg-type]  # a place
                return [out, pays(wallet, user, amount)] if token == USDC else [out]
            case "empty":
                return [ce.EmergencyWithdraw(**place, token=token, amount=1)]  # type: ignore[arg-type]  # a place
            case "delegate":
                kind = ce.DelegateAdded if draw.random() < 0.7 else ce.DelegateRemoved
                return [kind(**place, delegate=other, name=name)]  # type: ignore[arg-type]  # a place
            case "home":
                self.homes.setdefault(user, make_address("home", user))
                return [
                    ce.WalletCreated(**at(FACTORY), user=user, wallet=self.homes[user], salt=0)  # type: ignore[arg-type]  # a place
                ]
            case _:
                return [pays(user, wallet, amount)]

    def block(self, parent: FakeBlock, *, fork: str, most: int = 3) -> TimedBlock:
        """A block on top of another; now and then weeks later."""
        later_s = self.draw.choice((2,) * 30 + (10 * DAY_S, 30 * DAY_S))
        txs = tuple(self.txs(most))
        hash_ = make_hash(parent.hash, len(txs), fork, self.salts)
        return TimedBlock(parent.number + 1, hash_, parent.hash, txs, at=parent.time + later_s)

    def flood(self, parent: FakeBlock, user: str, *, fork: str) -> TimedBlock:
        """A block in which a user does a lot."""
        deeds = []
        for _ in range(40):
            self.salts += 1
            event = ce.FundsDeposited(**at(), user=user, amount=self.salts, token=USDC)  # type: ignore[arg-type]  # a place
            deeds.append(deed(event, sender=user, salt=str(self.salts)))
        hash_ = make_hash(parent.hash, "flood", fork, self.salts)
        return TimedBlock(parent.number + 1, hash_, parent.hash, tuple(deeds), at=parent.time + 2)

    def again(self, block: FakeBlock, parent: FakeBlock, *, fork: str) -> TimedBlock:
        """Another block with the same transactions: a reorg that includes them again."""
        kept = [tx for tx in block.txs if self.draw.random() < 0.8]
        self.draw.shuffle(kept)
        self.salts += 1
        hash_ = make_hash(parent.hash, "again", fork, self.salts)
        return TimedBlock(parent.number + 1, hash_, parent.hash, tuple(kept), at=parent.time + 2)


def decoded(blocks: Sequence[FakeBlock], chain_id: int) -> Iterator[DecodedBlock]:
    """The chain as its events, of wallets that were known by then."""
    owners: dict[str, str | None] = {WALLET: None}
    for block in blocks:
        events: list[ChainEvent] = []
        for tx in block.txs:
            for event in tx.events if isinstance(tx, Deed) else ():
                if isinstance(event, ce.WalletCreated):
                    owners[event.wallet] = event.user
                elif not isinstance(event, ce.TokenTransfer) and event.emitter not in owners:
                    continue
                events.append(replace(event))
        moment = datetime.fromtimestamp(block.time, UTC)
        yield DecodedBlock(chain_id, block.number, block.hash, block.parent, moment, tuple(events), {})


def held_at(blocks: Sequence[FakeBlock], user: str) -> int:
    """What a user holds of the token at their own address at the end of these blocks."""
    moved = (
        event
        for block in blocks
        for tx in block.txs
        for event in (tx.events if isinstance(tx, Deed) else ())
        if isinstance(event, ce.TokenTransfer)
    )
    return HELD + sum(event.amount * ((event.recipient == user) - (event.sender == user)) for event in moved)
