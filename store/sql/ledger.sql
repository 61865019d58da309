-- record --
-- Whatever changes a row says so in the same statement, for persistence: see store/persistence.py.
WITH changed AS (
INSERT INTO transactions (user_address, chain_id, block_hash, tx_hash, n, id, event_id, role, log_index, block_number,
                          block_time, type, account_type, direction, token, symbol, decimals, amount, usd, wallet,
                          bucket_id, bucket, to_bucket_id, to_bucket, counterparty, spender, fee_wei, fee_usd,
                          gas_used, gas_price, identifier, account_fee, account_fee_token)
SELECT user_address, chain_id, block_hash, tx_hash, n, id, event_id, role, log_index, block_number, block_time, type,
       account_type, direction, token, symbol, decimals, amount::numeric, usd::numeric, wallet, bucket_id, bucket,
       to_bucket_id, to_bucket, counterparty, spender, fee_wei::numeric, fee_usd::numeric, gas_used, gas_price::numeric,
       identifier, account_fee::numeric, account_fee_token
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::int[], $6::text[], $7::text[], $8::text[], $9::int[],
            $10::bigint[], $11::timestamptz[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[],
            $17::smallint[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[], $23::text[], $24::text[],
            $25::text[], $26::text[], $27::text[], $28::text[], $29::bigint[], $30::text[],
            $31::text[], $32::text[], $33::text[])
     AS t (user_address, chain_id, block_hash, tx_hash, n, id, event_id, role, log_index, block_number, block_time,
           type, account_type, direction, token, symbol, decimals, amount, usd, wallet, bucket_id, bucket,
           to_bucket_id, to_bucket, counterparty, spender, fee_wei, fee_usd, gas_used, gas_price, identifier,
           account_fee, account_fee_token)
ON CONFLICT (user_address, chain_id, block_hash, tx_hash, n) DO UPDATE SET
    canonical = true, event_id = excluded.event_id, version = nextval('ledger_version'), updated_at = now()
WHERE NOT transactions.canonical
RETURNING user_address, chain_id, block_number, block_hash, tx_hash, n
)
INSERT INTO ledger_changes (user_address, chain_id, block_number, block_hash, tx_hash, n)
SELECT user_address, chain_id, block_number, block_hash, tx_hash, n FROM changed

-- revert --
WITH changed AS (
    UPDATE transactions SET canonical = false, version = nextval('ledger_version'), updated_at = now()
    WHERE chain_id = $1 AND block_hash = $2 AND canonical
    RETURNING user_address, chain_id, block_number, block_hash, tx_hash, n
), told AS (
    INSERT INTO ledger_changes (user_address, chain_id, block_number, block_hash, tx_hash, n)
    SELECT user_address, chain_id, block_number, block_hash, tx_hash, n FROM changed
)
SELECT DISTINCT user_address FROM changed

-- keep_buckets --
INSERT INTO preimages (chain_id, block_number, block_hash, relation, key, was)
SELECT $1, $2, $3, 'buckets', k, to_jsonb(b)
FROM unnest($4::text[]) AS k LEFT JOIN buckets AS b ON b.bucket_id = k
ON CONFLICT DO NOTHING

-- keep_balances --
INSERT INTO preimages (chain_id, block_number, block_hash, relation, key, was)
SELECT $1, $2, $3, 'balances', concat_ws('|', k.user_address, k.scope, k.wallet, k.bucket_id, k.token), to_jsonb(b)
FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
     AS k (user_address, scope, wallet, bucket_id, token)
LEFT JOIN balances AS b ON b.user_address = k.user_address AND b.chain_id = $1 AND b.scope = k.scope
    AND b.wallet = k.wallet AND b.bucket_id = k.bucket_id AND b.token = k.token
ON CONFLICT DO NOTHING

-- keep_wallets --
INSERT INTO preimages (chain_id, block_number, block_hash, relation, key, was)
SELECT $1, $2, $3, 'wallets', k, to_jsonb(w)
FROM unnest($4::text[]) AS k LEFT JOIN wallets AS w ON w.chain_id = $1 AND w.address = k
ON CONFLICT DO NOTHING

-- keep_scopes --
INSERT INTO preimages (chain_id, block_number, block_hash, relation, key, was)
SELECT $1, $2, $3, 'wallet_scopes', k, to_jsonb(s)
FROM unnest($4::text[]) AS k JOIN wallet_scopes AS s ON s.chain_id = $1 AND s.user_address = k
ON CONFLICT DO NOTHING

-- restore_buckets --
-- One that was kept before there was `shared` lacks it.
WITH gone AS (
    DELETE FROM buckets USING preimages AS p
    WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'buckets' AND p.was IS NULL AND bucket_id = p.key
)
INSERT INTO buckets SELECT r.* FROM preimages AS p, jsonb_populate_record(
    NULL::buckets, jsonb_build_object('shared', p.was -> 'delegates' <> '[]') || p.was) AS r
WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'buckets' AND p.was IS NOT NULL
ON CONFLICT (bucket_id) DO UPDATE SET
    active = excluded.active, monthly_limit = excluded.monthly_limit, spent = excluded.spent,
    period_start = excluded.period_start, delegates = excluded.delegates, shared = excluded.shared

-- restore_balances --
WITH gone AS (
    DELETE FROM balances AS b USING preimages AS p
    WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'balances' AND p.was IS NULL AND b.chain_id = $1
        AND b.user_address = split_part(p.key, '|', 1) AND b.scope = split_part(p.key, '|', 2)
        AND b.wallet = split_part(p.key, '|', 3) AND b.bucket_id = split_part(p.key, '|', 4)
        AND b.token = split_part(p.key, '|', 5)
)
INSERT INTO balances SELECT r.* FROM preimages AS p, jsonb_populate_record(NULL::balances, p.was) AS r
WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'balances' AND p.was IS NOT NULL
ON CONFLICT (user_address, chain_id, scope, wallet, bucket_id, token) DO UPDATE SET amount = excluded.amount

-- restore_wallets --
WITH gone AS (
    DELETE FROM wallets AS w USING preimages AS p
    WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'wallets' AND p.was IS NULL
        AND w.chain_id = $1 AND w.address = p.key
)
UPDATE wallets AS w SET user_address = p.was ->> 'user_address', created_block = (p.was ->> 'created_block')::bigint
FROM preimages AS p
WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'wallets' AND p.was IS NOT NULL
    AND w.chain_id = $1 AND w.address = p.key

-- restore_scopes --
UPDATE wallet_scopes AS s SET opened_block = (p.was ->> 'opened_block')::bigint FROM preimages AS p
WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'wallet_scopes'
    AND s.chain_id = $1 AND s.user_address = p.key

-- restore_bucket_spending --
WITH gone AS (
    DELETE FROM bucket_spending AS s USING preimages AS p
    WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'bucket_spending' AND p.was IS NULL
        AND s.bucket_id = split_part(p.key, '|', 1) AND s.spender = split_part(p.key, '|', 2)
        AND s.token = split_part(p.key, '|', 3)
)
INSERT INTO bucket_spending SELECT r.* FROM preimages AS p, jsonb_populate_record(NULL::bucket_spending, p.was) AS r
WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'bucket_spending' AND p.was IS NOT NULL
ON CONFLICT (bucket_id, spender, token) DO UPDATE SET
    amount = excluded.amount, usd = excluded.usd, count = excluded.count, last_at = excluded.last_at,
    period_start = excluded.period_start, period_amount = excluded.period_amount, period_usd = excluded.period_usd

-- forget_preimages --
DELETE FROM preimages WHERE chain_id = $1 AND block_hash = $2

-- concerned --
-- Everyone whose ledger, balances, buckets or log a block changed: locked before it is taken back. A bucket's are also
-- those whom the owner lets spend from it, after the block or before it.
SELECT user_address FROM transactions WHERE chain_id = $1 AND block_hash = $2 AND canonical
UNION SELECT user_address FROM user_log WHERE chain_id = $1 AND cause = $3
UNION SELECT split_part(key, '|', 1) FROM preimages
    WHERE chain_id = $1 AND block_hash = $2 AND relation IN ('balances', 'positions', 'accounts')
UNION SELECT unnest(b.user_address::text || b.delegates[1:$4]) FROM preimages AS p JOIN buckets AS b ON b.bucket_id = p.key
    WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'buckets'
UNION SELECT d.address FROM preimages AS p,
        jsonb_array_elements_text(p.was -> 'delegates') WITH ORDINALITY AS d (address, place)
    WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'buckets' AND d.place <= $4
UNION SELECT unnest(b.delegates[1:$4]) FROM preimages AS p JOIN buckets AS b ON b.bucket_id = split_part(p.key, '|', 4)
    WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'balances'
