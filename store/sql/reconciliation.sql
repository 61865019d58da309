-- add_months --
-- Every month from the chain's first block (or an older one that ClickHouse has) to this one.
INSERT INTO reconciliations (chain_id, month)
SELECT c.chain_id, m::date
FROM chain_cursors AS c CROSS JOIN LATERAL (
    SELECT block_time FROM blocks AS b WHERE b.chain_id = c.chain_id AND b.canonical ORDER BY b.number LIMIT 1
) AS first CROSS JOIN LATERAL generate_series(
    date_trunc('month', least(first.block_time AT TIME ZONE 'UTC', $1::date)),
    date_trunc('month', greatest(c.block_time, now()) AT TIME ZONE 'UTC'), interval '1 month'
) AS m
ON CONFLICT DO NOTHING

-- clock --
SELECT clock_timestamp()

-- next --
-- What differed last, then the month that is under way, then what was compared longest ago; each once since $1. It counts
-- as tried, so that one that can't be compared in time does not keep the others waiting.
UPDATE reconciliations AS r SET tried_at = clock_timestamp()
FROM (
    SELECT chain_id, month FROM reconciliations
    WHERE tried_at IS NULL OR tried_at < $1
    ORDER BY differs > 0 DESC, month >= date_trunc('month', now() AT TIME ZONE 'UTC') DESC, tried_at NULLS FIRST,
             month DESC, chain_id
    LIMIT 1
) AS n
WHERE r.chain_id = n.chain_id AND r.month = n.month
RETURNING r.chain_id, r.month

-- compared --
UPDATE reconciliations SET differs = $3 WHERE chain_id = $1 AND month = $2

-- differing --
SELECT count(*) FROM reconciliations WHERE differs > 0

-- unsettled --
-- Users of whose rows a change waits: they are compared another time.
SELECT DISTINCT user_address FROM ledger_changes WHERE chain_id = $1 LIMIT $2

-- figures --
-- One month of a chain by the last two digits of the address: 256 groups, which say where a difference is.
SELECT right(t.user_address, 2) AS users, count(*) AS rows, (sum(t.amount) % (2::numeric ^ 256))::text AS amounts,
       coalesce(sum(round(t.usd, 18)) FILTER (WHERE abs(t.usd) < 1e20), 0) AS usd,
       count(*) FILTER (WHERE t.usd IS NULL) AS unpriced,
       sum(t.version)::text AS versions,
       coalesce(sum(('x' || right(a.category_id::text, 8))::bit(32)::bigint), 0)::text AS categories
FROM transactions AS t
LEFT JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
WHERE t.chain_id = $1 AND t.block_time >= $2::date::timestamp AT TIME ZONE 'UTC'
    AND t.block_time < ($2::date + interval '1 month') AT TIME ZONE 'UTC'
    AND t.canonical AND t.user_address <> ALL ($3::text[])
GROUP BY 1
