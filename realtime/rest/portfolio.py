"""Investments over REST: positions, the portfolio they are together, and what would bring it within its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from handlers import portfolio
from handlers.errors import NotFound
from handlers.portfolio import State, Wanted
from handlers.resources import Insight, Money, Position, Ratio, Resource, Time
from realtime.rest import shapes
from realtime.rest.api import Query, endpoint
from realtime.rest.call import Answer, Call
from realtime.rest.filtering import ChainId
from realtime.rest.paging import DEFAULT_LIMIT, CursorText, Limit, cursor_of, page, place_of

Level = Literal["low", "medium", "high"]


class RiskComponent(Resource):
    """One thing that adds to a risk. Weights combine as 1 - (1 - a)(1 - b)…; what adds nothing is told, too."""

    cause: Literal["protocol", "size", "lock", "apy", "positions", "concentration"]
    weight: Ratio
    figure: str | None = Field(description="What was measured: a class, share, days, APY or index; null: unknown.")
    reason: str


class Risk(Resource):
    """The risk of a position; score 0 to 1."""

    score: Ratio
    level: Level
    components: list[RiskComponent]


class HeldPosition(Position):
    """A position with its part of the portfolio and its whole risk; `riskLevel` is its protocol's, as in events."""

    share: Ratio | None = Field(description="Of all that was asked for and has a price; null: no price, or closed.")
    risk: Risk | None = Field(description="Null: it is closed.")


class Positions(shapes.Listed):
    """Positions in the order of their ids."""

    data: list[HeldPosition]


class Investment(Resource):
    """The investment block: open positions and what they are together.

    Totals are of what has a price; `unpriced` open positions have none. `monthlyYield` is what was earned since the
    month began in the user's zone, whatever was paid in or taken out, closed positions included; `monthlyUnpriced`
    gains are not in it. `averageAPY` is weighted by value.
    """

    total_value: Money
    total_yield: Money
    monthly_yield: Money
    monthly_unpriced: int
    average_apy: Ratio | None = Field(alias="averageAPY")
    positions: list[HeldPosition]
    risk_score: Ratio | None = Field(description="0 to 1; null: nothing has a value.")
    risk_level: Level | None
    risk_reasons: list[RiskComponent]
    unpriced: int


class SpreadOver(Resource):
    """How the portfolio lies over protocols or assets: `herfindahl` is the sum of squared shares, `score` 1 less it."""

    over: Literal["protocols", "assets"]
    groups: int
    largest: str | None
    largest_share: Ratio | None
    herfindahl: Ratio | None
    score: Ratio | None


class ProtocolPart(Resource):
    """What lies in one protocol; `apy` is weighted by value."""

    protocol: str
    value: Money
    share: Ratio | None
    yield_: Money = Field(alias="yield")
    apy: Ratio | None
    positions: int
    unpriced: int


class Investments(Investment):
    """The investment block, how it is spread, and what of it is worth a word."""

    diversification_score: Ratio | None = Field(
        description="1 less the Herfindahl index over pairs of protocol and asset."
    )
    diversification_reasons: list[SpreadOver]
    protocol_distribution: list[ProtocolPart] = Field(description="The largest first; shares come to exactly 1.")
    recommendations: list[Insight]
    month_start: Time
    time_zone: str


class Breach(Resource):
    """A share beyond a limit of the user's risk profile; `name` is a protocol, or a class of protocols."""

    kind: Literal["protocol", "class"]
    name: str
    share: Ratio
    limit: Ratio


class Suggestion(Resource):
    """A move; `open` is a new position, in a protocol of low risk that is not held yet."""

    action: Literal["reduce", "increase", "open"]
    position_id: str | None
    chain_id: int | None
    protocol: str | None
    asset: str
    from_share: Ratio
    to_share: Ratio
    amount_usd: Money
    reasons: list[Breach]


class ProfileLimits(Resource):
    """Largest shares that the profile bears: of one protocol, and of protocols of medium and high risk together."""

    protocol: Ratio
    medium: Ratio
    high: Ratio


class Locked(Resource):
    """A position that can't be moved yet."""

    position_id: str
    share: Ratio
    unlock_at: Time


class RiskAssessment(Resource):
    """How the portfolio stands against the user's risk profile."""

    risk_profile: Literal["conservative", "moderate", "aggressive"]
    risk_score: Ratio | None
    risk_level: Level | None
    suits_profile: bool
    diversification_score: Ratio | None
    limits: ProfileLimits
    breaches: list[Breach]
    locked: list[Locked]
    unpriced: int


class RatioChange(Resource):
    """A ratio before and after."""

    was: Ratio | None = Field(alias="from")
    will: Ratio | None = Field(alias="to")


class MoneyChange(Resource):
    """Dollars before and after."""

    was: Money = Field(alias="from")
    will: Money = Field(alias="to")


class Outcomes(Resource):
    """What the moves would change, before fees. What new positions will pay is not known: they are in no yield."""

    risk_score: RatioChange
    diversification_score: RatioChange
    average_apy: RatioChange = Field(alias="averageAPY")
    yield_per_year: MoneyChange
    new_positions_usd: Money


class Rebalancing(Resource):
    """What would bring the portfolio within the limits of the user's risk profile: figures to decide by."""

    rebalancing_suggestions: list[Suggestion]
    risk_assessment: RiskAssessment
    expected_outcomes: Outcomes
    action_priority: Literal["none", "low", "medium", "high"]
    reasoning: list[str]


AccountId = Annotated[
    str | None,
    Query("Account id, `eip155:<chainId>:<address>:<accountType>`.", name="accountId"),
    Field(max_length=256),
]


@endpoint("GET", "/v1/positions", tag="accounts", answers=Positions, tagged=True, problems=(NotFound,))
async def list_positions(
    call: Call,
    *,
    chain: ChainId = None,
    account_id: AccountId = None,
    state: Annotated[State, Query("Which ones: `open` by default.")] = "open",
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Answer:
    """List the user's positions by id; shares and risks are those among all open ones of this chain or account."""
    settings = call.deps.settings
    after = None if cursor is None else str(place_of(settings, "positions", cursor)[0])
    found = await portfolio.listed(
        call.deps, call.me.user, wanted=Wanted(chain, account_id), state=state, after=after, limit=limit
    )
    return page(call, found.data, None if found.next is None else cursor_of(settings, "positions", found.next))


@endpoint("GET", "/v1/investments", tag="accounts", answers=Investments, tagged=True, problems=(NotFound,))
async def read_investments(call: Call, *, chain: ChainId = None, account_id: AccountId = None) -> Mapping[str, object]:
    """Read the investments of the user, a chain or an account: totals, risk, spread, and what is worth knowing."""
    return await portfolio.investments(call.deps, call.me.user, wanted=Wanted(chain, account_id))


@endpoint("GET", "/v1/recommendations/rebalancing", tag="accounts", answers=Rebalancing, tagged=True)
async def rebalancing(call: Call) -> Mapping[str, object]:
    """Read what would bring the user's investments within the limits of `riskProfile`; nothing is moved."""
    return await portfolio.rebalancing(call.deps, call.me.user)


ROUTES = (list_positions, read_investments, rebalancing)
