-- spending --
SELECT bucket_id, spender, token, amount::text, usd, count, last_at, period_start, period_amount::text, period_usd
FROM bucket_spending WHERE bucket_id = ANY ($1::text[])

-- count --
-- The same from the ledger, up to a block: where a bucket becomes shared, and where its past was rebuilt.
SELECT t.bucket_id, coalesce(t.spender, '') AS spender, t.token, sum(t.amount)::text AS amount,
       CASE WHEN count(t.usd) = count(*) THEN sum(t.usd) END AS usd, count(*) AS count, max(t.block_time) AS last_at,
       b.period_start,
       coalesce(sum(t.amount) FILTER (WHERE t.block_time >= b.period_start), 0)::text AS period_amount,
       CASE WHEN count(t.usd) FILTER (WHERE t.block_time >= b.period_start)
               = count(*) FILTER (WHERE t.block_time >= b.period_start)
           THEN coalesce(sum(t.usd) FILTER (WHERE t.block_time >= b.period_start), 0) END AS period_usd
FROM unnest($1::text[], $2::timestamptz[]) AS b (bucket_id, period_start)
JOIN transactions AS t ON hashtextextended(t.bucket_id, 0) = hashtextextended(b.bucket_id, 0) AND t.bucket_id = b.bucket_id
WHERE t.canonical AND t.role = 'owner' AND t.type = 'spend' AND t.block_number <= $3
GROUP BY t.bucket_id, coalesce(t.spender, ''), t.token, b.period_start

-- save --
INSERT INTO bucket_spending (chain_id, bucket_id, spender, token, amount, usd, count, last_at, period_start,
                             period_amount, period_usd)
SELECT $1, bucket_id, spender, token, amount::numeric, usd::numeric, count, last_at, period_start,
       period_amount::numeric, period_usd::numeric
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::timestamptz[],
            $9::timestamptz[], $10::text[], $11::text[])
     AS s (bucket_id, spender, token, amount, usd, count, last_at, period_start, period_amount, period_usd)
ON CONFLICT (bucket_id, spender, token) DO UPDATE SET
    amount = excluded.amount, usd = excluded.usd, count = excluded.count, last_at = excluded.last_at,
    period_start = excluded.period_start, period_amount = excluded.period_amount, period_usd = excluded.period_usd

-- keep --
INSERT INTO preimages (chain_id, block_number, block_hash, relation, key, was)
SELECT $1, $2, $3, 'bucket_spending', concat_ws('|', k.bucket_id, k.spender, k.token), to_jsonb(s)
FROM unnest($4::text[], $5::text[], $6::text[]) AS k (bucket_id, spender, token)
LEFT JOIN bucket_spending AS s ON s.bucket_id = k.bucket_id AND s.spender = k.spender AND s.token = k.token
ON CONFLICT DO NOTHING

-- drop --
DELETE FROM bucket_spending WHERE bucket_id = ANY ($1::text[])

-- drop_preimages --
DELETE FROM preimages
WHERE chain_id = $1 AND block_number >= $2 AND relation = 'bucket_spending'
    AND split_part(key, '|', 1) = ANY ($3::text[])

-- delegated --
-- Buckets of others that a user may spend from; only the first so many delegates of a bucket share it.
SELECT chain_id, wallet, user_address, bucket_id, name, raw_name, active, monthly_limit::text, spent::text,
       period_start, delegates, shared
FROM buckets
WHERE delegates @> ARRAY[$1::text] AND array_position(delegates, $1) <= $3 AND user_address <> $1
    AND ($2::bigint IS NULL OR chain_id = $2)
ORDER BY bucket_id

-- bucket --
SELECT chain_id, wallet, user_address, bucket_id, name, raw_name, active, monthly_limit::text, spent::text,
       period_start, delegates, shared
FROM buckets WHERE bucket_id = $1

-- bucket_ids --
-- Shared buckets in which others see a user's name.
SELECT bucket_id FROM buckets WHERE shared AND user_address = $1 AND delegates <> '{}' AND bucket_id > $2
UNION SELECT bucket_id FROM buckets WHERE delegates @> ARRAY[$1::text] AND bucket_id > $2
ORDER BY bucket_id LIMIT $3

-- held --
SELECT bucket_id, token, amount::text FROM balances
WHERE user_address = ANY ($1::text[]) AND scope = 'bucket' AND bucket_id = ANY ($2::text[])

-- names --
SELECT address, display_name FROM users WHERE address = ANY ($1::text[]) AND display_name IS NOT NULL

-- spends --
-- Newest first, below ($4, $5); by the index transactions_bucket, whose expression this repeats.
SELECT id, chain_id, tx_hash, block_number, block_time, token, symbol, decimals, amount::text, usd, counterparty, spender
FROM transactions
WHERE hashtextextended(bucket_id, 0) = hashtextextended($1, 0) AND bucket_id = $1 AND canonical AND role = 'owner' AND type = 'spend'
    AND ($2::text IS NULL OR spender = $2)
    AND block_time >= $3 AND (block_time, id) < ($4::timestamptz, $5::text)
ORDER BY block_time DESC, id DESC LIMIT $6
