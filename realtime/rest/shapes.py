"""What REST takes and answers beyond the resources of handlers/resources.py: bodies, lists, and the problem itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from handlers.resources import AddressText, Amount, Bucket, HashText, Resource, Time, Transaction
from store.signatures import MAX_SIGNATURE


class Listed(Resource):
    """A page; `nextCursor` leads to the next one, also given as `Link: <…>; rel="next"`. There are no totals."""

    has_more: bool
    next_cursor: str | None


class V1Refusal(Resource):
    """A refusal in the envelope of the first front end."""

    success: Literal[False]
    error: str


class User(Resource):
    """A registered user."""

    address: AddressText
    display_name: str | None
    avatar_url: str | None
    time_zone: str
    locale: str
    risk_profile: str
    ai_consent: bool


class Nonce(Resource):
    """A nonce for one sign-in message."""

    nonce: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{8,}$")]
    expires_at: Time


class Verify(Resource):
    """A signed EIP-4361 message."""

    message: Annotated[str, Field(max_length=4096, description="The text exactly as it was signed.")]
    signature: Annotated[
        str,
        Field(
            pattern=r"^0x([0-9a-fA-F]{2})+$",
            max_length=len("0x") + 2 * MAX_SIGNATURE,
            description="Hex, as personal_sign gives it; wrapped (ERC-6492) while the account is not deployed.",
        ),
    ]


class Refresh(Resource):
    """A refresh token."""

    refresh_token: Annotated[str, Field(max_length=128)]


class Tokens(Resource):
    """Fresh tokens; `expiresIn` is the life of the access token (s). The refresh token works once."""

    access_token: Annotated[str, Field(pattern=r"^exa_[A-Za-z0-9_-]{43}$")]
    refresh_token: Annotated[str, Field(pattern=r"^exr_[A-Za-z0-9_-]{43}$")]
    expires_in: int
    user: User


class Session(Resource):
    """A live sign-in; `current` is the one that asks."""

    id: str
    user_agent: str
    ip_address: str | None
    created_at: Time
    last_used_at: Time
    current: bool


class Sessions(Listed):
    """Every live sign-in of the user, the last used first."""

    data: list[Session]


class AuditEntry(Resource):
    """Something that happened to the account; `metadata` differs by action."""

    id: int
    action: str
    metadata: dict[str, Any]
    ip_address: str | None
    user_agent: str
    timestamp: Time


class AuditEntries(Listed):
    """Entries of the audit log, newest first."""

    data: list[AuditEntry]


class ChainToken(Resource):
    """A token that takes part in balances; `isUsd`: it counts as one dollar."""

    address: AddressText
    symbol: str
    decimals: int
    is_usd: bool


class Chain(Resource):
    """A chain and how far it is, in block numbers; null before its first block is known here."""

    chain_id: int
    name: str
    head: int | None = Field(description="Newest block that is committed here.")
    confirmed: int | None = Field(description="Newest block whose transactions are confirmed.")
    finalized: int | None = Field(description="Newest block whose transactions are final.")
    lag_blocks: int | None = Field(description="Blocks that the chain's nodes are ahead of us.")
    head_time: Time | None = Field(description="Time of the head block.")
    confirmations: int
    tokens: list[ChainToken]


class Chains(Listed):
    """Every chain of this installation."""

    data: list[Chain]


class LoggedEvent(Resource):
    """An event of the log; `payload` is byte for byte what a socket gets."""

    event: str
    payload: dict[str, Any]


class Events(Resource):
    """Events above `after`, in order; ask again with `after` = `seq` while `hasMore`."""

    data: list[LoggedEvent]
    epoch: str
    seq: int
    has_more: bool


class Transactions(Listed):
    """Transactions, newest first."""

    data: list[Transaction]


class Buckets(Listed):
    """Buckets in the order of their ids."""

    data: list[Bucket]


class BucketSpend(Resource):
    """A spend from a bucket as everyone who shares it sees it; `id` is the transaction's."""

    id: str
    chain_id: int
    tx_hash: HashText
    block_number: int
    block_time: Time
    spender: AddressText | None
    display_name: str | None
    role: Literal["owner", "delegate", "former"]
    amount: Amount
    recipient: AddressText | None


class BucketSpends(Listed):
    """Who spent from a bucket, newest first."""

    data: list[BucketSpend]


class Health(Resource):
    """The process answers."""

    status: Literal["ok"]


class Readiness(Resource):
    """The database answers; Redis may be away, then events reach clients later but none is lost."""

    status: Literal["ok"]
    database: str
    redis: Literal["ok", "away"]


class OpenApi(Resource):
    """An OpenAPI 3.1 document."""

    openapi: Literal["3.1.0"]
    info: dict[str, Any]
    servers: list[dict[str, Any]]
    tags: list[dict[str, Any]]
    paths: dict[str, Any]
    components: dict[str, Any]
    security: list[dict[str, Any]]
