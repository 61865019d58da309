-- record --
-- Only what differs from the newest answer: the table is the feeds' history, not one row a block.
INSERT INTO prices (chain_id, token, block_number, block_hash, usd, feed_updated_at)
SELECT $1, r.token, $2, $3, r.usd, r.updated_at
FROM unnest($4::text[], $5::numeric[], $6::timestamptz[]) AS r (token, usd, updated_at)
LEFT JOIN LATERAL (
    SELECT true AS is_there, usd, feed_updated_at FROM prices AS p WHERE p.chain_id = $1 AND p.token = r.token
    ORDER BY block_number DESC LIMIT 1
) AS last ON true
WHERE last.is_there IS NULL OR (last.usd, last.feed_updated_at) IS DISTINCT FROM (r.usd, r.updated_at)
ON CONFLICT (chain_id, token, block_number) DO UPDATE SET
    block_hash = excluded.block_hash, usd = excluded.usd, feed_updated_at = excluded.feed_updated_at

-- latest --
-- One step of the index per token, however long its history is.
WITH RECURSIVE newest AS (
    (SELECT chain_id, token, usd FROM prices ORDER BY chain_id DESC, token DESC, block_number DESC LIMIT 1)
    UNION ALL
    SELECT following.chain_id, following.token, following.usd
    FROM newest CROSS JOIN LATERAL (
        SELECT chain_id, token, usd FROM prices AS p WHERE (p.chain_id, p.token) < (newest.chain_id, newest.token)
        ORDER BY chain_id DESC, token DESC, block_number DESC LIMIT 1
    ) AS following
)
SELECT chain_id, token, usd FROM newest

-- revert --
DELETE FROM prices WHERE chain_id = $1 AND block_hash = $2
