-- by_type --
-- Everything that moved the user's own money in a span of time: what a reorg took back, and what was spent from others'
-- buckets, is not there.
SELECT type, direction, count(*) AS count, coalesce(sum(usd), 0) AS usd, count(*) FILTER (WHERE usd IS NULL) AS unpriced
FROM transactions
WHERE user_address = $1 AND canonical AND role = 'owner' AND block_time >= $2 AND block_time < $3
GROUP BY type, direction ORDER BY type, direction

-- by_category --
-- What counts for budgets (as store/sql/budgets.sql has it).
SELECT a.category_id::text AS name, count(*) AS count, coalesce(sum(t.usd), 0) AS usd,
       count(*) FILTER (WHERE t.usd IS NULL) AS unpriced
FROM transactions AS t
LEFT JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
WHERE t.user_address = $1 AND t.canonical AND t.role = 'owner' AND t.block_time >= $2 AND t.block_time < $3
    AND (t.type = 'spend' OR (t.type = 'transfer' AND t.direction = 'out' AND a.category_id IS NOT NULL
                              AND t.counterparty <> t.user_address))
GROUP BY a.category_id ORDER BY usd DESC, name

-- by_payee --
SELECT t.counterparty AS name, count(*) AS count, coalesce(sum(t.usd), 0) AS usd,
       count(*) FILTER (WHERE t.usd IS NULL) AS unpriced
FROM transactions AS t
LEFT JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
WHERE t.user_address = $1 AND t.canonical AND t.role = 'owner' AND t.block_time >= $2 AND t.block_time < $3
    AND t.counterparty IS NOT NULL
    AND (t.type = 'spend' OR (t.type = 'transfer' AND t.direction = 'out' AND a.category_id IS NOT NULL
                              AND t.counterparty <> t.user_address))
GROUP BY t.counterparty ORDER BY usd DESC, count DESC, name LIMIT $4

-- by_bucket --
SELECT bucket AS name, count(*) AS count, coalesce(sum(usd), 0) AS usd, count(*) FILTER (WHERE usd IS NULL) AS unpriced
FROM transactions
WHERE user_address = $1 AND canonical AND role = 'owner' AND block_time >= $2 AND block_time < $3
    AND type = 'spend' AND bucket IS NOT NULL
GROUP BY bucket ORDER BY usd DESC, name
