"""Token transfers from and to registered users' own addresses, and deposits stranded in wallet contracts."""

from __future__ import annotations

from handlers.chain_events import TokenTransfer
from handlers.rules.book import Book, Movement
from store.records import Address, Direction


def token_moved(book: Book, event: TokenTransfer) -> None:
    """Tell both sides of a transfer that are registered, unless a wallet event tells them already."""
    if event.gas:
        _pay_gas(book, event)
        return
    joined = book.legs.user_of.get(event.log_index)
    owner = _stranded_for(book, event) if joined is None else None
    for user in dict.fromkeys((event.sender, event.recipient)):
        if user in book.registered and user != joined and user != owner:
            _tell(book, event, user)
    if owner is not None and owner in book.registered:
        movement = Movement(
            "stranded_deposit",
            "in",
            event.emitter,
            event.amount,
            counterparty=event.sender,
            wallet=event.recipient,
        )
        touched = book.move_own(owner, event) if owner == event.sender else []
        book.record(event, owner, movement, touched=touched)


def _tell(book: Book, event: TokenTransfer, user: Address) -> None:
    movement = Movement(
        "transfer",
        _direction(event, user),
        event.emitter,
        event.amount,
        counterparty=event.recipient if event.sender == user else event.sender,
    )
    book.record(event, user, movement, touched=book.move_own(user, event))


def _direction(event: TokenTransfer, user: Address) -> Direction:
    if event.sender == event.recipient:
        return "internal"
    return "out" if event.sender == user else "in"


def _stranded_for(book: Book, event: TokenTransfer) -> Address | None:
    """Whose money is stuck when tokens reach a wallet contract without a deposit: its owner, else the sender."""
    if event.recipient in book.created_wallets:
        return book.created_wallets[event.recipient]
    if event.recipient not in book.owners:
        return None
    return book.owners[event.recipient] or event.sender


def _pay_gas(book: Book, event: TokenTransfer) -> None:
    """A fee paid in a token (CIP-64) changes the balance and is not a payment."""
    for user in dict.fromkeys((event.sender, event.recipient)):
        if user in book.registered and book.move_own(user, event):
            book.tell_bulk(user, "correction")
