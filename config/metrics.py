"""Every metric, named once. The only module-level state of the product: prometheus_client's registry is process-wide.

Counters are exposed with the suffix `_total`. Hot paths use the cached children of `of_chain`: finding a child by its
labels costs three times what counting does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from prometheus_client import Counter, Gauge, Histogram, start_http_server

_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BLOCK_LATENCY_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)  # block times have whole seconds
_REORG_BLOCKS = (1, 2, 3, 5, 10, 20, 64, 128)
_TURN_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1)

BLOCKS_INGESTED = Counter("expendi_blocks_ingested", "Blocks committed, empty ones too.", ["chain"])
EVENTS_INGESTED = Counter("expendi_events_ingested", "Chain events committed with their block.", ["chain"])
INGEST_SECONDS = Histogram(
    "expendi_ingest_seconds", "Time of a block's transaction, decode to commit (s).", ["chain"], buckets=_LATENCY_S
)
REORG_DEPTH = Histogram("expendi_reorg_depth_blocks", "Blocks taken back by a reorg.", ["chain"], buckets=_REORG_BLOCKS)
LOGS_QUARANTINED = Counter(
    "expendi_logs_quarantined", "Logs set aside because applying them failed; each has its reason stored.", ["chain"]
)
RPC_ERRORS = Counter("expendi_rpc_errors", "JSON-RPC calls that failed, by kind of failure.", ["chain", "kind"])
PRICES_REFUSED = Counter(
    "expendi_prices_refused", "Answers of price feeds that counted for nothing, by reason.", ["chain", "reason"]
)
RPC_FAILOVERS = Counter(
    "expendi_rpc_failovers", "Times a node was passed over for others, by reason.", ["chain", "reason"]
)
RPC_NODES = Gauge("expendi_rpc_nodes", "Nodes of the chain's row, by state: usable or put aside.", ["chain", "state"])
RPC_NODE_LAG = Gauge("expendi_rpc_node_lag_blocks", "Blocks a node's head is behind its peers'.", ["chain", "node"])
RPC_DISAGREEMENTS = Counter(
    "expendi_rpc_disagreements", "Times nodes gave different blocks for one height, put to the vote.", ["chain"]
)
RPC_BATCHES_REFUSED = Counter("expendi_rpc_batches_refused", "Requests a node found to have too many calls.", ["chain"])
EMPTY_LOGS = Counter(
    "expendi_empty_logs",
    "Blocks without logs though their bloom may say otherwise: repaired by a second look, or believed after it.",
    ["chain", "outcome"],
)
HEADS_LOST = Counter("expendi_heads_lost", "Ends of the websocket for new heads, by reason.", ["chain", "reason"])
CHAIN_STOPPED = Gauge("expendi_chain_stopped", "1 while the chain is stopped loudly, else 0.", ["chain"])
CHAIN_FAILURES = Counter("expendi_chain_failures", "Times following a chain ended unexpectedly: a bug.", ["chain"])
CHAIN_HEAD = Gauge("expendi_chain_head", "Newest block number the nodes have told.", ["chain"])
CHAIN_CURSOR = Gauge("expendi_chain_cursor", "Newest block number that is committed.", ["chain"])
CHAIN_LAG = Gauge("expendi_chain_lag_blocks", "Blocks between the head and the cursor.", ["chain"])
BLOCK_TO_PUBLISH_SECONDS = Histogram(
    "expendi_block_to_publish_seconds",
    "Time from a block's timestamp until its events were published (s).",
    ["chain"],
    buckets=_BLOCK_LATENCY_S,
)

PUBLISH_SECONDS = Histogram(
    "expendi_publish_seconds", "Time to publish what one commit has to tell (s).", buckets=_LATENCY_S
)
PUBLISH_FAILURES = Counter(
    "expendi_publish_failures", "Publishes that failed; the log repairs what they would have told."
)

SOCKETS_CONNECTED = Gauge("expendi_sockets_connected", "Sockets with a session on this process.")
EVENTS_DELIVERED = Counter("expendi_events_delivered", "Events written to sockets.")
CATCH_UPS = Counter("expendi_catch_ups", "Times a socket was brought up from the log instead of from the live stream.")
SOCKETS_CLOSED = Counter("expendi_sockets_closed", "Sockets closed by the server, by reason.", ["reason"])
LOOP_TURN_SECONDS = Histogram(
    "expendi_loop_turn_seconds",
    "Turns of the web process's event loop longer than 0.25 ms (s): what comes meanwhile waits that long.",
    buckets=_TURN_S,
)

RATE_LIMITED = Counter("expendi_rate_limited", "Calls refused by a rate limit, by scope.", ["scope"])
REQUESTS = Counter("expendi_requests", "REST requests, by route and status.", ["route", "status"])
STREAMS = Counter("expendi_streams", "Answers written while they were made, by what became of them.", ["outcome"])
SIGN_INS = Counter("expendi_sign_ins", "Attempts to sign in, by outcome.", ["outcome"])

ANSWERS = Counter("expendi_answers", "Analytics answers, by route and whether Redis had kept it.", ["route", "outcome"])

SEALS_BROKEN = Counter("expendi_seals_broken", "Sealed fields read that no key opens, by purpose.", ["purpose"])

AI_CALLS = Counter("expendi_ai_calls", "Calls of language models, by provider and outcome.", ["provider", "outcome"])
CATEGORIZED = Counter("expendi_categorized", "Spends that a job judged, by whose answer counts.", ["by"])

JOBS = Counter("expendi_jobs", "Jobs run, by name and outcome.", ["job", "outcome"])
TURNS_FAILED = Counter("expendi_turns_failed", "Users or challenges whose turn of the clock's work failed.", ["work"])
JOB_SECONDS = Histogram("expendi_job_seconds", "Time one attempt of a job took (s).", ["job"], buckets=_LATENCY_S)
PERSIST_LAG_SECONDS = Gauge("expendi_persist_lag_seconds", "Age of the oldest committed change not yet persisted (s).")
ANALYTICS_DIFFERENCES = Gauge(
    "expendi_analytics_differences", "Months of chains of which PostgreSQL and ClickHouse said different things last."
)
OUTBOX_DEPTH = Gauge("expendi_outbox_depth", "Jobs in the outbox that nobody has finished.")

PUSHES = Counter("expendi_pushes", "Attempts of pushes, by kind and what became of them.", ["kind", "state"])
PUSH_SENDS = Counter("expendi_push_sends", "Pushes to single devices, by what became of them.", ["fate"])
MAILS = Counter("expendi_mails", "Attempts to send a letter, by kind and what became of it.", ["kind", "state"])

STANDINGS_SECONDS = Histogram(
    "expendi_standings_seconds",
    "Time from committed scores until standings had them and whom it concerns was told (s).",
    buckets=_LATENCY_S,
)
STANDINGS_TOLD = Counter("expendi_standings_told", "leaderboard_update events published.")
STANDINGS_REBUILT = Counter("expendi_standings_rebuilt", "Times a challenge's standings were made again.")
STANDINGS_MISSED = Counter(
    "expendi_standings_missed", "Reads of standings that PostgreSQL answered, since Redis did not."
)


@dataclass(frozen=True, slots=True)
class ChainMetrics:
    """The children of one chain, found once."""

    blocks_ingested: Counter
    events_ingested: Counter
    ingest_seconds: Histogram
    reorg_depth: Histogram
    logs_quarantined: Counter
    head: Gauge
    cursor: Gauge
    lag: Gauge
    block_to_publish_seconds: Histogram

    def seen(self, head: int, *, cursor: int) -> None:
        """Set head, cursor and lag (block numbers) together, so that they never contradict each other."""
        self.head.set(head)
        self.cursor.set(cursor)
        self.lag.set(max(0, head - cursor))


@cache
def of_chain(chain_id: int) -> ChainMetrics:
    """The cached children of one chain; the label is the chain id."""
    chain = str(chain_id)
    return ChainMetrics(
        blocks_ingested=BLOCKS_INGESTED.labels(chain),
        events_ingested=EVENTS_INGESTED.labels(chain),
        ingest_seconds=INGEST_SECONDS.labels(chain),
        reorg_depth=REORG_DEPTH.labels(chain),
        logs_quarantined=LOGS_QUARANTINED.labels(chain),
        head=CHAIN_HEAD.labels(chain),
        cursor=CHAIN_CURSOR.labels(chain),
        lag=CHAIN_LAG.labels(chain),
        block_to_publish_seconds=BLOCK_TO_PUBLISH_SECONDS.labels(chain),
    )


@contextmanager
def served(host: str, port: int) -> Iterator[None]:
    """Serve this process's metrics over HTTP meanwhile, from a thread of its own; port 0 serves nothing."""
    if not port:
        yield
        return
    server, thread = start_http_server(port, addr=host)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
