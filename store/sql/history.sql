-- transactions --
-- Newest first, below ($11, $12): bounds are always given, so that the index is entered there whatever is filtered.
SELECT user_address, chain_id, block_hash, tx_hash, n, event_id, role, log_index, block_number, block_time, type,
       account_type, direction, token, symbol, decimals, amount::text, usd, wallet, bucket_id, bucket, to_bucket_id,
       to_bucket, counterparty, spender, fee_wei::text, fee_usd, gas_used, gas_price::text, identifier,
       account_fee::text, account_fee_token, canonical
FROM transactions
WHERE user_address = $1 AND canonical AND chain_id = ANY ($2::bigint[])
    AND ($3::text[] IS NULL OR type = ANY ($3::text[]))
    AND ($4::text IS NULL OR account_type = $4)
    AND ($5::text IS NULL OR $5 IN (bucket_id, to_bucket_id, bucket, to_bucket))
    AND ($6::text IS NULL OR token = $6)
    AND ($7::numeric IS NULL OR usd >= $7) AND ($8::numeric IS NULL OR usd <= $8)
    AND ($9::text[] IS NULL OR NOT EXISTS (
        SELECT FROM unnest($9::text[]) AS p
        WHERE NOT (starts_with(coalesce(counterparty, ''), p) OR starts_with(tx_hash, p))))
    AND ($14::uuid IS NULL OR EXISTS (
        SELECT FROM transaction_categories AS a
        WHERE a.user_address = $1 AND a.transaction_id = transactions.id AND a.category_id = $14))
    AND ($15::bigint[] IS NULL OR EXISTS (
        SELECT FROM search_rows AS s
        WHERE s.user_address = $1 AND s.transaction_id = transactions.id AND s.text_id = ANY ($15::bigint[])))
    AND block_time >= $10 AND (block_time, id) < ($11::timestamptz, $12::text)
ORDER BY block_time DESC, id DESC LIMIT $13

-- transactions_among --
-- The same of a few transactions that a search found: fetched by their ids, not looked for.
SELECT *
FROM transactions
WHERE user_address = $1 AND canonical AND chain_id = ANY ($2::bigint[])
    AND ($3::text[] IS NULL OR type = ANY ($3::text[]))
    AND ($4::text IS NULL OR account_type = $4)
    AND ($5::text IS NULL OR $5 IN (bucket_id, to_bucket_id, bucket, to_bucket))
    AND ($6::text IS NULL OR token = $6)
    AND ($7::numeric IS NULL OR usd >= $7) AND ($8::numeric IS NULL OR usd <= $8)
    AND ($9::text[] IS NULL OR NOT EXISTS (
        SELECT FROM unnest($9::text[]) AS p
        WHERE NOT (starts_with(coalesce(counterparty, ''), p) OR starts_with(tx_hash, p))))
    AND ($14::uuid IS NULL OR EXISTS (
        SELECT FROM transaction_categories AS a
        WHERE a.user_address = $1 AND a.transaction_id = transactions.id AND a.category_id = $14))
    AND id = ANY ($15::text[])
    AND block_time >= $10 AND (block_time, id) < ($11::timestamptz, $12::text)
ORDER BY block_time DESC, id DESC LIMIT $13

-- transaction --
SELECT user_address, chain_id, block_hash, tx_hash, n, event_id, role, log_index, block_number, block_time, type,
       account_type, direction, token, symbol, decimals, amount::text, usd, wallet, bucket_id, bucket, to_bucket_id,
       to_bucket, counterparty, spender, fee_wei::text, fee_usd, gas_used, gas_price::text, identifier,
       account_fee::text, account_fee_token, canonical
FROM transactions WHERE user_address = $1 AND id = $2 AND canonical

-- reverted_transaction --
-- What a reorg took back and no block brought again, as it was last.
SELECT user_address, chain_id, block_hash, tx_hash, n, event_id, role, log_index, block_number, block_time, type,
       account_type, direction, token, symbol, decimals, amount::text, usd, wallet, bucket_id, bucket, to_bucket_id,
       to_bucket, counterparty, spender, fee_wei::text, fee_usd, gas_used, gas_price::text, identifier,
       account_fee::text, account_fee_token, canonical
FROM transactions WHERE user_address = $1 AND chain_id = $3 AND id = $2
ORDER BY version DESC LIMIT 1

-- unfinal --
-- Highest block with a transaction that is not final, by user and chain. Block times lead to the few rows concerned:
-- what is above the finalized height is not older than the first block kept from there on.
SELECT t.user_address, t.chain_id, max(t.block_number) AS number
FROM (
    SELECT chain_id, finalized, (
        SELECT block_time FROM blocks AS b
        WHERE b.chain_id = f.chain_id AND b.canonical AND b.number >= f.finalized ORDER BY b.number LIMIT 1
    ) AS since
    FROM unnest($2::bigint[], $3::bigint[]) AS f (chain_id, finalized)
) AS h
JOIN transactions AS t ON t.chain_id = h.chain_id AND t.canonical AND t.block_number > h.finalized
    AND t.block_time >= h.since
WHERE t.user_address = ANY ($1::text[])
GROUP BY t.user_address, t.chain_id
