"""Categories as their user shapes them: own ones, the tree, preferences, rules. Every change is an event of the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any, Literal, Protocol
from uuid import UUID, uuid4

from config import keys
from handlers.deps import Deps
from handlers.errors import Conflict, FieldError, Forbidden, Invalid, NotFound, PreconditionFailed
from handlers.rules import category_tree
from handlers.rules.category_tree import resource
from store import categories, log, outbox
from store.categories import CategoryRow, Place, RulePlace, RuleRow
from store.postgres import Tx, in_transaction
from store.records import Address, Draft, Frame

MAX_OWN = 100
"""Active categories of one user's own: more than anyone sorts money into."""
MAX_RULES = 500
"""Rules of one user: all of them are read when a block holds a spend of theirs."""

RuleField = Literal["counterparty", "bucket", "memo"]
Shown = Mapping[str, object]


class DefaultCategory(Forbidden):
    """A default category is everyone's: set your own name, colour and icon for it instead."""

    code, title = "default_category", "A default category is everyone's"


class BudgetChanged(Protocol):
    """What tells of a changed budget in the transaction of the change (handlers/budgets.py)."""

    async def __call__(self, tx: Tx, user: Address, now: datetime) -> Draft:
        """The event to append; budgets and alerts are brought up to date."""
        ...


@dataclass(frozen=True, slots=True)
class Base:
    """The base values of a category of the user's own."""

    name: str
    description: str
    color_hex: str
    parent_id: str | None
    sort_order: int


@dataclass(frozen=True, slots=True)
class CategoryPage:
    """Some categories, and where the next page begins (None: there is none)."""

    resources: Sequence[Shown]
    next: Place | None


@dataclass(frozen=True, slots=True)
class RulePage:
    """Some rules, and where the next page begins (None: there is none)."""

    rows: Sequence[RuleRow]
    next: RulePlace | None


@dataclass(frozen=True, slots=True)
class _Change:
    """What a transaction did to one category, whether anyone sees it, by another name, and what else is to be told."""

    category_id: str
    seen: bool = True
    renamed: bool = False
    also: Sequence[Draft] = ()


# What users read ---------------------------------------------------------------------------------------------------


async def listed(deps: Deps, user: Address, *, inactive: bool, after: Place, limit: int) -> CategoryPage:
    """A user's categories, defaults first; `inactive`: those that were deleted too."""
    rows = await categories.page(deps.pool, user, inactive=inactive, after=after, limit=limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    following = None if last is None else Place(not last.is_default, last.sort_order, last.id)
    return CategoryPage([resource(row, cdn_url=deps.settings.cdn_url) for row in rows[:limit]], following)


async def read(deps: Deps, user: Address, category_id: str) -> Shown:
    """One category of a user, a deleted one too; raises NotFound."""
    row = await categories.one(deps.pool, user, category_id)
    if row is None:
        raise _unknown()
    return resource(row, cdn_url=deps.settings.cdn_url)


# What users change -------------------------------------------------------------------------------------------------


async def create(deps: Deps, user: Address, base: Base, *, cause: str | None = None) -> Shown:
    """Make a category of the user's own; raises Invalid or Conflict. The same `cause` makes one category."""
    return await _changed(deps, user, partial(_create, user, base, cause))


async def edit(
    deps: Deps, user: Address, category_id: str, changes: Mapping[str, Any], *, unless: Callable[[Shown], bool]
) -> Shown:
    """Change fields of Base of a category of the user's own; raises PreconditionFailed where `unless` says so."""
    return await _changed(deps, user, partial(_edit, deps, user, category_id, changes, unless))


async def delete(deps: Deps, user: Address, category_id: str, *, budget_changed: BudgetChanged) -> Shown:
    """Deactivate a category of the user's own: transactions keep it; its rules and its budget end."""
    return await _changed(deps, user, partial(_delete, deps, user, category_id, budget_changed))


async def prefer(
    deps: Deps, user: Address, category_id: str, changes: Mapping[str, Any], *, budget_changed: BudgetChanged
) -> Shown:
    """Change custom_name, custom_color_hex, is_favorite or monthly_budget of any category; None takes one back."""
    return await _changed(deps, user, partial(_prefer, deps, user, category_id, changes, budget_changed))


async def _changed(deps: Deps, user: Address, change: Callable[[Tx], Awaitable[_Change]]) -> Shown:
    """One transaction under the user's lock; where it changed what the user sees, every device is told after it."""

    async def body(tx: Tx) -> tuple[Shown, list[Frame]]:
        counters = await log.lock(tx, [user])
        done = await change(tx)
        row = await categories.one(tx, user, done.category_id)
        assert row is not None
        shown = resource(row, cdn_url=deps.settings.cdn_url)
        told = category_tree.updated(user, shown, counters[user].epoch, counters[user].seq)
        if done.renamed:  # its transactions are found by its new name
            await outbox.request(tx, "slow", "index_many", {"user": user, "category": done.category_id})
        drafts = [*([told] if done.seen else []), *done.also]
        return shown, await log.append(tx, counters, drafts, at=deps.now())

    shown, frames = await in_transaction(deps.pool, body)
    await deps.publisher.publish([(frame.user, frame.text) for frame in frames])
    await deps.publisher.wake(keys.JOBS_WAKE)
    return shown


async def _create(user: Address, base: Base, cause: str | None, tx: Tx) -> _Change:
    category_id = _id_of(user, cause)
    made = await categories.one(tx, user, category_id)
    if made is not None and made.is_active:
        return _Change(made.id, seen=False)  # the call died after this; it runs again for its answer
    if made is not None:
        category_id = str(uuid4())
    if await categories.count_own(tx, user) >= MAX_OWN:
        raise Conflict(f"You have {MAX_OWN} categories of your own; delete one first.")
    row = CategoryRow(
        id=category_id,
        owner=user,
        name=base.name,
        description=base.description,
        icon_url=None,
        color_hex=base.color_hex,
        parent_id=base.parent_id,
        is_default=False,
        is_active=True,
        sort_order=base.sort_order,
        custom_name=None,
        custom_icon_url=None,
        custom_color_hex=None,
        is_favorite=False,
        monthly_budget=None,
    )
    await _check_place(tx, user, row, known=False)
    await categories.insert(tx, user, row)
    return _Change(category_id)


def _id_of(user: Address, cause: str | None) -> str:
    if cause is None:
        return str(uuid4())
    return str(UUID(bytes=sha256(f"category\0{user}\0{cause}".encode()).digest()[:16], version=4))


async def _check_place(tx: Tx, user: Address, row: CategoryRow, *, known: bool) -> None:
    if await categories.name_taken(tx, user, row.name, but=row.id):
        raise Conflict("You have a category of this name already.", errors=[FieldError("/name", "is taken")])
    wrong = category_tree.misplaced(await categories.parents(tx, user), row.id if known else None, row.parent_id)
    if wrong is not None:
        raise Invalid("The category can't be there.", errors=[FieldError("/parentId", wrong)])


async def _edit(
    deps: Deps, user: Address, category_id: str, changes: Mapping[str, Any], unless: Callable[[Shown], bool], tx: Tx
) -> _Change:
    before = await _own(tx, user, category_id)
    if unless(resource(before, cdn_url=deps.settings.cdn_url)):
        raise PreconditionFailed("The category was changed meanwhile; read it again.")
    after = replace(before, **changes)
    await _check_place(tx, user, after, known=True)
    await categories.update(tx, user, after)
    return _Change(category_id, seen=after != before, renamed=after.name != before.name)


async def _delete(deps: Deps, user: Address, category_id: str, budget_changed: BudgetChanged, tx: Tx) -> _Change:
    before = await _own(tx, user, category_id)
    if category_tree.has_children(await categories.parents(tx, user), category_id):
        raise Conflict("The category has others under it; move or delete them first.")
    await categories.deactivate(tx, user, category_id)
    if before.monthly_budget is None:
        return _Change(category_id)
    await categories.set_preferences(tx, user, replace(before, monthly_budget=None))
    return _Change(category_id, also=[await budget_changed(tx, user, deps.now())])


async def _prefer(
    deps: Deps, user: Address, category_id: str, changes: Mapping[str, Any], budget_changed: BudgetChanged, tx: Tx
) -> _Change:
    before = await _active(tx, user, category_id)
    after = replace(before, **changes)
    await categories.set_preferences(tx, user, after)
    renamed = after.custom_name != before.custom_name
    if after.monthly_budget == before.monthly_budget:
        return _Change(category_id, seen=after != before, renamed=renamed)
    return _Change(category_id, renamed=renamed, also=[await budget_changed(tx, user, deps.now())])


async def _active(tx: Tx, user: Address, category_id: str) -> CategoryRow:
    row = await categories.one(tx, user, category_id)
    if row is None or not row.is_active:
        raise _unknown()
    return row


async def _own(tx: Tx, user: Address, category_id: str) -> CategoryRow:
    row = await _active(tx, user, category_id)
    if row.is_default:
        raise DefaultCategory("Set your own name, colour or icon for it instead; it can't be changed or deleted.")
    return row


def _unknown() -> NotFound:
    return NotFound("There is no category of yours with this id.")


# Rules -------------------------------------------------------------------------------------------------------------


async def rules(deps: Deps, user: Address, *, after: RulePlace, limit: int) -> RulePage:
    """A user's rules, newest first."""
    rows = await categories.rules(deps.pool, user, after=after, limit=limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    return RulePage(rows[:limit], None if last is None else RulePlace(last.created_at, last.id))


async def add_rule(deps: Deps, user: Address, field: RuleField, value: str, category_id: str) -> RuleRow:
    """Make a rule, or let the one that there is lead to this category; raises Invalid or Conflict."""

    async def body(tx: Tx) -> RuleRow:
        await log.lock(tx, [user])
        return await make_rule(tx, user, field, value, category_id, now=deps.now())

    return await in_transaction(deps.pool, body)


async def make_rule(tx: Tx, user: Address, field: RuleField, value: str, category_id: str, *, now: datetime) -> RuleRow:
    """Make a rule in a transaction that holds the user's lock; raises Invalid or Conflict.

    Transactions from now on follow it; those that have their category keep it.
    """
    compared = category_tree.rule_value(field, value)
    if compared is None:
        words = {"counterparty": "should be an address", "memo": "should be one word of three letters or more"}
        raise Invalid("The rule would never hold.", errors=[FieldError("/value", words.get(field, "is empty"))])
    row = await categories.one(tx, user, category_id)
    if row is None or not row.is_active:
        raise Invalid("The rule leads nowhere.", errors=[FieldError("/categoryId", "is not one of your categories")])
    new = not await categories.rule_exists(tx, user, field, compared)
    if new and await categories.count_rules(tx, user) >= MAX_RULES:
        raise Conflict(f"You have {MAX_RULES} rules; delete one first.")
    return await categories.save_rule(tx, user, field, compared, category_id, at=now)


async def delete_rule(deps: Deps, user: Address, rule_id: str) -> None:
    """Delete a rule; transactions keep the category that it gave them. Raises NotFound."""

    async def body(tx: Tx) -> bool:
        await log.lock(tx, [user])
        return await categories.delete_rule(tx, user, rule_id)

    if not await in_transaction(deps.pool, body):
        raise NotFound("There is no rule of yours with this id.")
