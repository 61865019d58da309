-- by_bucket --
-- What a user's own rows did to each bucket: a transfer between two touches both, but is spending of neither.
SELECT k.bucket_id, count(*) AS transactions,
       coalesce(sum(t.usd) FILTER (WHERE t.type = 'spend'), 0) AS spent,
       count(*) FILTER (WHERE t.type = 'spend' AND t.usd IS NULL) AS unpriced,
       coalesce(sum(t.usd) FILTER (WHERE t.type = 'bucket_funding' OR k.bucket_id = t.to_bucket_id), 0) AS funded,
       min(t.block_time) AS first, max(t.block_time) AS last,
       count(*) FILTER (WHERE (t.type = 'bucket_funding' OR k.bucket_id = t.to_bucket_id) AND t.usd IS NULL) AS funded_unpriced
FROM transactions AS t
CROSS JOIN LATERAL unnest(ARRAY[t.bucket_id, nullif(t.to_bucket_id, t.bucket_id)]) AS k (bucket_id)
WHERE t.user_address = $1 AND t.canonical AND t.role = 'owner' AND k.bucket_id IS NOT NULL
    AND ($2::bigint IS NULL OR t.chain_id = $2) AND t.block_time >= $3 AND t.block_time < $4
GROUP BY k.bucket_id

-- spent_by_period --
-- Spends of each bucket by day, month or year of the user's zone.
SELECT t.bucket_id, date_trunc($2, t.block_time AT TIME ZONE $3)::date AS period, coalesce(sum(t.usd), 0) AS spent,
       count(*) AS transactions, count(*) FILTER (WHERE t.usd IS NULL) AS unpriced
FROM transactions AS t
WHERE t.user_address = $1 AND t.canonical AND t.role = 'owner' AND t.type = 'spend' AND t.bucket_id IS NOT NULL
    AND ($4::bigint IS NULL OR t.chain_id = $4) AND t.block_time >= $5 AND t.block_time < $6
GROUP BY t.bucket_id, period

-- zone --
-- Whether an address is registered, and in which zone its days begin.
SELECT time_zone FROM users WHERE address = $1
