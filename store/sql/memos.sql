-- memos --
SELECT user_address, chain_id, tx_hash, n, memo FROM memos
WHERE user_address = ANY ($1::text[]) AND chain_id = ANY ($2::bigint[]) AND tx_hash = ANY ($3::text[])

-- put_memo --
INSERT INTO memos (user_address, chain_id, tx_hash, n, memo, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $6)
ON CONFLICT (user_address, chain_id, tx_hash, n) DO UPDATE SET memo = excluded.memo, updated_at = excluded.updated_at

-- delete_memo --
DELETE FROM memos WHERE user_address = $1 AND chain_id = $2 AND tx_hash = $3 AND n IS NOT DISTINCT FROM $4

-- has_whole --
SELECT EXISTS (SELECT FROM memos WHERE user_address = $1 AND chain_id = $2 AND tx_hash = $3 AND n IS NULL)

-- owned --
SELECT n FROM transactions
WHERE user_address = $1 AND chain_id = $2 AND tx_hash = $3 AND role = 'owner' AND canonical
ORDER BY n
