"""The catalogue of events a client can receive: name, payload, whether durable, and when a phone is told."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Literal

from pydantic import Field

from handlers.challenge_resources import Challenge
from handlers.resources import (
    Achievement,
    Balance,
    Bucket,
    BudgetImpact,
    BudgetState,
    Category,
    Goal,
    Money,
    MonthImpact,
    Notification,
    Position,
    Problem,
    Ratio,
    Resource,
    Snapshot,
    Subject,
    Time,
    Transaction,
    TransactionCategory,
)


class Push(Enum):
    """Whether an event is also a push notification."""

    NEVER = "never"
    IF_AWAY = "if_away"


class Event(Resource):
    """Base of every event. `durable` ones are in the user's log; the rest is best effort."""

    name: ClassVar[str]
    durable: ClassVar[bool] = True
    push: ClassVar[Push] = Push.NEVER
    version: ClassVar[int] = 1


class Durable(Event):
    """Head of every durable event; `corrects` names the events it takes back."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    seq: int = Field(ge=1)
    ts: Time
    v: int
    corrects: list[str] = Field(default_factory=list)


class SessionStarted(Event):
    """First event of a socket: who it is, where the log stands, whether it was resumed."""

    name = "session"
    durable = False

    user_id: str
    epoch: str
    seq: int
    recovered: bool
    replayed: int
    server_time: Time


class SessionClosed(Event):
    """Last event of a socket that the server closes: why, as a problem. A slow client is cut without it."""

    name = "session_closed"
    durable = False

    reason: Literal["token_expired", "revoked"]
    error: Problem


class SnapshotTaken(Event, Snapshot):
    """The whole state; sets the client's position to `seq`."""

    name = "snapshot"
    durable = False


class NewTransaction(Durable):
    """A ledger row, the balances it changed and the budgets it hit."""

    name = "new_transaction"
    push = Push.IF_AWAY

    transaction: Transaction
    updated_balances: list[Balance]
    budget_impact: list[BudgetImpact | MonthImpact]


class TransactionReverted(Durable):
    """A reorg took a transaction back; balances and budgets are as they are without it."""

    name = "transaction_reverted"

    transaction_id: str
    reason: Literal["reorg"]
    updated_balances: list[Balance]
    budget_impact: list[BudgetImpact | MonthImpact]


class TransactionCategorized(Durable):
    """A transaction got another category, and the budgets moved; `corrects` names alerts that no longer hold."""

    name = "transaction_categorized"

    transaction_id: str
    category: TransactionCategory
    confidence: str
    source: Literal["rule", "history", "model", "manual"]
    reasoning: str
    budget_impact: list[MonthImpact]


class CategoryUpdated(Durable):
    """A category was made, changed, deleted (`isActive` false), or has a new icon."""

    name = "category_updated"

    category: Category


class BudgetUpdate(Durable):
    """Budgets after an edit, or when a month has ended."""

    name = "budget_update"

    budgets: list[BudgetState]


class BudgetAlert(Durable):
    """An edge of a budget was crossed; amounts are dollars, or a bucket's raw counter."""

    name = "budget_alert"

    type: Literal["threshold", "over_budget", "projected_overrun"]
    scope: Literal["bucket", "category", "total"]
    category: Subject | None
    bucket: Subject | None
    threshold: int | None
    spent: str
    budget: str
    utilization: str | None
    message: str
    severity: Literal["info", "warning", "critical"]
    timestamp: Time
    causes: list[str]


class BucketUpdate(Durable):
    """A bucket was created or changed, or its period closed; a shared one after every block that moved it.

    `removed`: the user sees it no more. A reorg took its creation back, or they may not spend from it any longer.
    """

    name = "bucket_update"

    bucket: Bucket
    removed: bool = False


class GoalUpdate(Durable):
    """A goal was made, edited, deleted (`isActive` false) or moved; `corrects` names what a reorg took back of it."""

    name = "goal_update"

    goal: Goal


class GoalMilestone(Durable):
    """A goal reached a milestone: once each, also when money is spent later. Phones are told the highest at once."""

    name = "goal_milestone"
    push = Push.IF_AWAY

    goal_id: str
    goal_name: str
    milestone: Literal[25, 50, 75, 100]
    progress: str
    current_amount: str
    target_amount: str


class AchievementUnlocked(Durable):
    """An achievement is held from now on. `causes`: events that brought it about, as far as the log keeps them."""

    name = "achievement_unlocked"
    push = Push.IF_AWAY

    achievement: Achievement
    causes: list[str]


class AchievementRevoked(Durable):
    """An achievement is held no longer: a reorg, another category or a recount took its cause away.

    `corrects` names what told of it; `causes` what took the cause. It may be unlocked again.
    """

    name = "achievement_revoked"

    achievement: Achievement
    causes: list[str]


class YieldUpdate(Durable):
    """Positions that changed, or whose yield moved: as they are now. A closed one leaves the view.

    `totalYield` and `apy` (weighted by value) are over all open positions of the user; `unpriced` of them have no price
    and are in neither.
    """

    name = "yield_update"

    total_yield: Money
    positions: list[Position]
    apy: Ratio | None
    unpriced: int


class ChallengeUpdate(Durable):
    """A challenge that the user made, joined or left or is invited to, that was cancelled, has ended, or is settled.

    As it is now. Phones are told of invitations, and when it is settled.
    """

    name = "challenge_update"
    push = Push.IF_AWAY

    challenge: Challenge


class Resync(Durable):
    """State changed in bulk; a fresh snapshot follows."""

    name = "resync"

    reason: Literal["backfill", "rebuild", "correction"]


class NotificationAdded(Durable):
    """Something new in the inbox, and how much of it is not read."""

    name = "notification"

    notification: Notification
    unread_count: int


class UnreadCount(Durable):
    """The unread count after reads on any device, or after a notification was taken back.

    `corrects` names that notification where nothing before did.
    """

    name = "unread_count"

    unread_count: int


class ChainStatus(Event):
    """Heights of a chain, while the user has a transaction on it that is not final."""

    name = "chain_status"
    durable = False

    chain_id: int
    head: int
    confirmed: int
    finalized: int
    lag_blocks: int
    at: Time


class LeaderboardUpdate(Event):
    """Where the user is in a challenge, after their own progress or that of someone directly beside them.

    `previousRank` is what was told last, null at first. Many changes within a second or so are one event.
    """

    name = "leaderboard_update"
    durable = False

    challenge_id: str
    rank: int = Field(ge=1)
    previous_rank: int | None
    progress: Ratio


CATALOGUE: tuple[type[Event], ...] = (
    SessionStarted,
    SessionClosed,
    SnapshotTaken,
    NewTransaction,
    TransactionReverted,
    TransactionCategorized,
    BucketUpdate,
    CategoryUpdated,
    BudgetUpdate,
    BudgetAlert,
    GoalUpdate,
    GoalMilestone,
    AchievementUnlocked,
    AchievementRevoked,
    YieldUpdate,
    ChallengeUpdate,
    Resync,
    NotificationAdded,
    UnreadCount,
    ChainStatus,
    LeaderboardUpdate,
)

BY_NAME = {event.name: event for event in CATALOGUE}
