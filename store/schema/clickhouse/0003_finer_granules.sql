-- Granules of 1,024 rows instead of 8,192: a question is about one user, who has some dozens of rows in a month, and
-- pays for whole granules of every month. Halves the cost of trends (docs/adr/0012-analytics-from-the-base-table.md). Run it with `jobs quick` stopped: a
-- batch that is inserted at the very moment of the exchange would stay in the old table; the comparison of both stores
-- would say so, and `expendi analytics rebuild` mend it. Nothing is copied: parts are taken over as they are, and have
-- finer granules once they are merged or rebuilt.
CREATE TABLE IF NOT EXISTS transaction_events_finer AS transaction_events
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(timestamp)
ORDER BY (user_id, chain_id, timestamp, transaction_hash, n, block_hash)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 1024;

-- A second time, parts are there twice until they are merged: FINAL reads each row once all the same.
ALTER TABLE transaction_events_finer ATTACH PARTITION ALL FROM transaction_events;

DROP VIEW IF EXISTS hourly_spending_mv SYNC;

-- In one step: no reader meets a table that is missing or empty.
EXCHANGE TABLES transaction_events AND transaction_events_finer;

-- As in 0001, on the table that has the name now.
CREATE MATERIALIZED VIEW IF NOT EXISTS hourly_spending_mv TO hourly_spending AS
SELECT user_id, chain_id, category_id, toStartOfHour(timestamp) AS hour,
       sumState(amount_usd) AS total_spent, countState() AS transaction_count,
       avgState(amount_usd) AS avg_amount, uniqExactState(transaction_id) AS uniq_tx
FROM transaction_events
WHERE transaction_type = 'spend' AND role = 'owner' AND is_deleted = 0
GROUP BY user_id, chain_id, category_id, hour;

DROP TABLE IF EXISTS transaction_events_finer SYNC;
