-- Analytics, rebuilt from PostgreSQL at any time. Every statement is harmless the second time: ClickHouse has no
-- transactions, so a run that was cut runs the whole file again.

-- One row per ledger row, reverted ones as tombstones (is_deleted). The key names the block as well as the log: what a
-- reorg includes again in another block is another row, and the old one is removed by its own tombstone, whatever the
-- order in which they arrive. Exact figures are read FINAL.
-- user_id is no LowCardinality: a part with millions of users would only pay for the dictionary, and the sort key
-- compresses it well. Amounts are exact in amount_raw; amount and amount_usd are null where decimals or price are
-- unknown, or where a hostile token's figure exceeds 10^20.
CREATE TABLE IF NOT EXISTS transaction_events (
    transaction_id String,
    event_id String,
    chain_id UInt64,
    user_id String,
    role LowCardinality(String),
    transaction_hash FixedString(66),
    n UInt32,
    log_index UInt32,
    block_number UInt64,
    block_hash FixedString(66),
    timestamp DateTime64(3, 'UTC'),
    type LowCardinality(String),
    transaction_type Enum8('deposit' = 1, 'withdrawal' = 2, 'transfer' = 3, 'spend' = 4),
    account_type Enum8('spending' = 1, 'investment' = 2, 'savings' = 3),
    direction Enum8('in' = 1, 'out' = 2, 'internal' = 3),
    amount_raw UInt256,
    token_decimals Nullable(UInt8),
    amount Nullable(Decimal(38, 18)),
    amount_usd Nullable(Decimal(38, 18)),
    token_address LowCardinality(String),
    category_id LowCardinality(String) DEFAULT '',
    recipient_address String DEFAULT '',
    memo String DEFAULT '',
    fee_wei Nullable(UInt256),
    gas_used Nullable(UInt64),
    gas_price_wei Nullable(UInt128),
    metadata String DEFAULT '{}',
    version UInt64,
    is_deleted UInt8 DEFAULT 0,
    INDEX memo_ngrams lower(memo) TYPE ngrambf_v1(3, 4096, 3, 0) GRANULARITY 1,
    INDEX transaction_hashes transaction_hash TYPE bloom_filter(0.01) GRANULARITY 4
) ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(timestamp)
ORDER BY (user_id, chain_id, timestamp, transaction_hash, n, block_hash)
SETTINGS non_replicated_deduplication_window = 10000;

-- Approximate, for dashboards only: a sum can't take a tombstone back. Its window keeps a repeated insert from
-- counting twice; without one on this table, too, the view would double.
CREATE TABLE IF NOT EXISTS hourly_spending (
    user_id String,
    chain_id UInt64,
    category_id LowCardinality(String),
    hour DateTime('UTC'),
    total_spent AggregateFunction(sum, Nullable(Decimal(38, 18))),
    transaction_count AggregateFunction(count),
    avg_amount AggregateFunction(avg, Nullable(Decimal(38, 18))),
    uniq_tx AggregateFunction(uniqExact, String)
) ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (user_id, chain_id, category_id, hour)
SETTINGS non_replicated_deduplication_window = 10000;

-- In USD, the only unit that adds up across tokens; the owner's row only, so that a delegate's spend counts once.
CREATE MATERIALIZED VIEW IF NOT EXISTS hourly_spending_mv TO hourly_spending AS
SELECT user_id, chain_id, category_id, toStartOfHour(timestamp) AS hour,
       sumState(amount_usd) AS total_spent, countState() AS transaction_count,
       avgState(amount_usd) AS avg_amount, uniqExactState(transaction_id) AS uniq_tx
FROM transaction_events
WHERE transaction_type = 'spend' AND role = 'owner' AND is_deleted = 0
GROUP BY user_id, chain_id, category_id, hour;
