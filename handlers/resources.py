"""Resources of CONTRACT as models: what OpenAPI, the event catalogue and the tests hold payloads to.

Trusted code builds plain dicts (handlers/rules/wire.py); these models describe them and check them in tests and docs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Raw = Annotated[str, Field(pattern=r"^-?[0-9]+$", description="Decimal integer string of base units.")]
Money = Annotated[str, Field(pattern=r"^-?[0-9]+\.[0-9]{2,}$", description="US dollars, decimal string.")]
Ratio = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?$", description="Decimal string; 1 is the whole.")]
Time = Annotated[str, Field(description="ISO-8601 UTC with `Z`.", examples=["2026-11-24T10:00:00.000Z"])]
AddressText = Annotated[str, Field(pattern=r"^0x[0-9a-f]{40}$")]
Color = Annotated[str, Field(pattern=r"^#[0-9A-F]{6}$")]
HashText = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]


class Resource(BaseModel):
    """Base: camelCase on the wire, unknown keys refused, frozen."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class FieldError(Resource):
    """One bad part of the request: JSON pointer into the body, or `/query/<name>`."""

    pointer: str
    message: str


class Problem(Resource):
    """A refusal (RFC 9457); `code` is for programs, `detail` says what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None
    errors: list[FieldError]


class Amount(Resource):
    """A token amount. `decimals` and `symbol` are null for a token the chain table doesn't list."""

    raw: Raw
    decimals: int | None
    symbol: str | None
    token: AddressText
    usd: Money | None


class Balance(Resource):
    """What is held where. Scope wallet is the user's own address; `wallet` and `bucket` are null there."""

    chain_id: int
    scope: Literal["unallocated", "bucket", "wallet"]
    wallet: AddressText | None
    bucket: str | None
    bucket_id: str | None
    amount: Amount


class Member(Resource):
    """What one who shares a bucket spent from it.

    `former`: whoever spent and is no member now, or is not named by the chain.
    """

    address: AddressText | None
    display_name: str | None = Field(description="A delegate's is shown from their first spend on.")
    role: Literal["owner", "delegate", "former"]
    spent: list[Amount] = Field(description="In the rolling period at hand, each in dollars as of its block.")
    spent_total: list[Amount]
    count: int = Field(description="Spends of all time.")
    last_spent_at: Time | None


class Bucket(Resource):
    """A spending bucket; limit and spent are the contract's raw counter. `role`: what the user is to it."""

    id: str
    chain_id: int
    wallet: AddressText
    owner: AddressText
    role: Literal["owner", "delegate"]
    name: str
    active: bool
    monthly_limit: Raw
    spent: Raw
    period_start: Time | None
    period_end: Time | None
    balances: list[Amount]
    delegates: list[AddressText]
    members: list[Member] = Field(description="Who spent what; empty for a bucket that was never shared.")


class BudgetImpact(Resource):
    """What one spend does on one clock. Scope bucket: raw counter integers with `decimals`."""

    scope: Literal["bucket"]
    bucket_id: str
    name: str
    period_start: Time | None
    period_end: Time | None
    budget: Raw | None
    spent_before: Raw
    spent_after: Raw
    remaining: Raw | None
    utilization: Ratio | None
    status: Literal["healthy", "warning", "over_budget"]
    safe_to_spend_per_day: Raw | None
    projected_overrun: Raw | None
    unpriced: int
    decimals: int | None


class BudgetState(Resource):
    """A monthly budget and what was spent of it, in dollars; nothing in it depends on the clock."""

    scope: Literal["category", "total"]
    category_id: str | None
    name: str
    period_start: Time
    period_end: Time
    budget: Money
    spent: Money
    remaining: Money
    utilization: Ratio | None
    status: Literal["healthy", "warning", "over_budget"]
    unpriced: int


class MonthImpact(Resource):
    """What one spend does to a monthly budget, in dollars; scope total counts every category."""

    scope: Literal["category", "total"]
    category_id: str | None
    name: str
    period_start: Time
    period_end: Time
    budget: Money
    spent_before: Money
    spent_after: Money
    remaining: Money
    utilization: Ratio | None
    status: Literal["healthy", "warning", "over_budget"]
    safe_to_spend_per_day: Money
    projected_overrun: Money
    unpriced: int


class Category(Resource):
    """A category as its user sees it. Custom values fall back to the base; `monthlyBudget` null: none."""

    id: str
    name: str
    description: str
    icon_url: str | None
    color_hex: Color
    parent_id: str | None
    is_default: bool
    is_active: bool
    sort_order: int
    custom_name: str
    custom_icon_url: str | None
    custom_color_hex: Color
    is_favorite: bool
    monthly_budget: Money | None


class GoalImpact(Resource):
    """What a spend would do to a goal that its bucket keeps; `progressAfter` is null where the token has no price."""

    goal_id: str
    name: str
    progress_before: Ratio
    progress_after: Ratio | None
    on_track_before: bool | None
    on_track_after: bool | None


class Simulation(Resource):
    """Whether a spend would fit. `reasons` says what stands against it; pace alone does not."""

    fits: bool
    reasons: list[Literal["inactive", "over_limit", "over_balance", "over_budget"]]
    bucket: BudgetImpact
    budgets: list[MonthImpact]
    goals: list[GoalImpact]
    balance_before: Amount
    balance_after: Amount


class TransactionCategory(Resource):
    """The category of a transaction as its user sees it, how sure, and who decided."""

    id: str
    name: str
    icon_url: str | None
    color_hex: str
    confidence: Annotated[str, Field(pattern=r"^[01]\.[0-9]{2}$")]
    source: Literal["rule", "history", "model", "manual"]
    is_manual_override: bool


class Subject(Resource):
    """What an alert is about."""

    id: str
    name: str


class GoalLink(Resource):
    """What keeps a goal: a bucket, a position (lock, vault), or operations of the planned contract by identifier."""

    kind: Literal["bucket", "lock", "vault", "v2"]
    chain_id: int
    id: str


class Goal(Resource):
    """A savings goal in dollars. Without a link its amount is kept by hand. `isActive` false: it was deleted.

    `progress` may exceed 1; `onTrack` is null without a date; amounts without a price are counted in `unpriced`.
    """

    goal_id: HashText
    name: str
    progress: Ratio
    current_amount: Money
    target_amount: Money
    target_date: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] | None
    days_remaining: Annotated[int, Field(ge=0)] | None
    on_track: bool | None
    category: Subject | None
    yield_earned: Money
    apy: Ratio | None
    unpriced: int
    link: GoalLink | None
    milestones: list[Literal[25, 50, 75, 100]] = Field(description="Percent that were reached once.")
    is_completed: bool
    completed_at: Time | None
    is_active: bool


class Insight(Resource):
    """Something worth knowing, with its figures; higher priorities come first."""

    kind: Literal["spending", "investment", "savings", "holistic"]
    priority: Annotated[int, Field(ge=0, le=100)]
    title: str
    body: str
    figures: dict[str, str | int | None]
    actions: list[str]


TransactionType = Literal[
    "deposit",
    "withdrawal",
    "transfer",
    "spend",
    "bucket_funding",
    "bucket_transfer",
    "unallocated_withdraw",
    "emergency_withdraw",
    "stranded_deposit",
    "vault_deposit",
    "vault_withdraw",
    "yield_lock",
    "yield_unlock",
    "account_operation",
]


class Position(Resource):
    """An investment as it was told last: `value` and what follows from it are as of block `asOfBlock`.

    `kind` vault: shares of an ERC-4626 vault; lock: a yield time lock; account: what a V2 account holds under one
    identifier, which is worth its principal. `principal` is what went in and has not come out, `yield` the value beyond
    it. Null: not known (yet). Closed, it has neither shares nor principal.
    """

    position_id: str
    chain_id: int
    kind: Literal["vault", "lock", "account"]
    protocol: str
    asset: str = Field(description="Symbol of the token it is held in, or its address.")
    value: Amount | None
    principal: Amount | None
    yield_: Amount | None = Field(alias="yield")
    apy: Ratio | None = Field(description="Growth of the share price over `windowDays`, annualised.")
    window_days: Ratio | None = Field(description="Seven days, or the time since entry where that is shorter.")
    as_of_block: int
    shares: Amount | None
    entry_price: Ratio | None = Field(description="Assets per share that went in.")
    fees: Amount = Field(description="What the contract has kept of operations on it.")
    risk_level: Literal["low", "medium", "high"] = Field(
        description="By the class of its protocol; `risk` of `/positions` weighs size, lock and APY, too."
    )
    unlock_at: Time | None
    label: str | None
    last_updated_at: Time


class Transaction(Resource):
    """One row of a user's ledger; `n` of its id is the log's position within its transaction."""

    id: str
    chain_id: int
    tx_hash: HashText
    log_index: int
    block_number: int
    block_hash: HashText
    block_time: Time
    status: Literal["included", "confirmed", "finalized", "reverted"]
    type: TransactionType
    account_type: Literal["spending", "investment", "savings"]
    amount: Amount
    direction: Literal["in", "out", "internal"]
    counterparty: AddressText | None
    spender: AddressText | None
    role: Literal["owner", "delegate"]
    wallet: AddressText | None
    bucket: str | None
    bucket_id: str | None
    to_bucket: str | None
    to_bucket_id: str | None
    category: TransactionCategory | None
    identifier: str | None = Field(
        description="The position that the row is about; of a V2 operation its bucket, position or goal id (bytes32)."
    )
    account_fee: Amount | None = Field(description="What the contract kept of the operation; not the network's fee.")
    fee: Amount | None
    memo: str | None = Field(description="The user's own note; nobody else's row shows it.")


NoticeKind = Literal[
    "spending_alert",
    "yield_update",
    "goal_milestone",
    "anomaly_alert",
    "achievement_unlocked",
    "transaction_received",
    "delegate_spend",
    "bucket_shared",
    "friend_request",
    "friend_accepted",
    "challenge_invited",
    "challenge_settled",
]


class Notification(Resource):
    """An entry of the inbox; `eventId` names the event it is about."""

    id: str
    kind: NoticeKind
    title: str
    body: str
    severity: Literal["info", "warning", "critical"]
    event_id: str
    transaction_id: str | None
    created_at: Time
    read_at: Time | None


Tier = Literal["bronze", "silver", "gold", "platinum"]


class Achievement(Resource):
    """An achievement that is, or was, held."""

    code: str
    title: str
    description: str
    tier: Tier
    unlocked_at: Time


class Snapshot(Resource):
    """Everything a client shows, as of log position `seq`."""

    seq: int
    balances: list[Balance]
    buckets: list[Bucket]
    budgets: list[BudgetState]
    positions: list[Position]
    goals: list[Goal]
    unread_count: int
    achievements: list[Achievement]
