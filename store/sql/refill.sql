-- only --
SELECT pg_try_advisory_lock(hashtextextended('expendi.refill', 0))

-- quieten --
-- The lock that a chain's persister takes (persistence.sql, take), when it is free.
SELECT pg_advisory_lock(hashtextextended('expendi.persister:' || $1::bigint, 0))

-- begin --
INSERT INTO analytics_refill (chain_id, next_month)
VALUES ($1, coalesce(date_trunc('month', $2::date), '0001-01-01')::date)
ON CONFLICT (one_row) DO NOTHING

-- measure --
-- What there is now; what happens later comes by way of the batches.
UPDATE analytics_refill AS r SET next_day = m.first, until = m.last + 1, rows = m.rows
FROM analytics_refill AS asked CROSS JOIN LATERAL (
    SELECT coalesce(min(block_time) AT TIME ZONE 'UTC', now())::date AS first,
           coalesce(max(block_time) AT TIME ZONE 'UTC', now())::date AS last, count(*) AS rows
    FROM transactions
    WHERE (asked.chain_id IS NULL OR chain_id = asked.chain_id)
        AND block_time >= asked.next_month::timestamp AT TIME ZONE 'UTC'
) AS m
WHERE r.until IS NULL

-- current --
SELECT chain_id, next_day, until, next_month, copied, rows FROM analytics_refill

-- day --
-- One day's rows, canonical or not: a tombstone keeps what comes late from counting again.
SELECT t.*, a.category_id
FROM transactions AS t
LEFT JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
WHERE t.block_time >= $1::date::timestamp AT TIME ZONE 'UTC'
    AND t.block_time < ($1::date + 1)::timestamp AT TIME ZONE 'UTC'
    AND ($2::bigint IS NULL OR t.chain_id = $2)

-- copied --
UPDATE analytics_refill SET next_day = $1::date + 1, copied = copied + $2, updated_at = now()

-- swapped --
-- Answers made of the old figures are not asked for again, nor is a token of the table that is gone. The month is
-- compared next.
WITH counted AS (
    UPDATE analytics_generation SET generation = generation + 1
), compared AS (
    UPDATE reconciliations SET tried_at = NULL WHERE month = $1::date
)
UPDATE analytics_refill SET next_month = ($1::date + interval '1 month')::date, updated_at = now()

-- ended --
DELETE FROM analytics_refill

-- chains --
SELECT chain_id FROM chain_cursors UNION SELECT DISTINCT chain_id FROM ledger_changes ORDER BY chain_id
