-- registered --
-- Which of these addresses are registered, since when their own address is followed on the chain, and their accounts there.
SELECT u.address, s.opened_block, ARRAY(
    SELECT a.account_type FROM user_accounts AS a
    WHERE a.user_address = u.address AND a.chain_id = $1 AND a.opened_block IS NOT NULL
) AS accounts
FROM users AS u LEFT JOIN wallet_scopes AS s ON s.chain_id = $1 AND s.user_address = u.address
WHERE u.address = ANY ($2::text[])

-- register --
INSERT INTO users (address)
SELECT a FROM unnest($1::text[]) AS a WHERE NOT EXISTS (SELECT FROM users AS u WHERE u.address = a) ORDER BY a
ON CONFLICT (address) DO NOTHING

-- await_opening --
INSERT INTO wallet_scopes (chain_id, user_address)
SELECT $1, a FROM unnest($2::text[]) AS a
WHERE NOT EXISTS (SELECT FROM wallet_scopes AS s WHERE s.chain_id = $1 AND s.user_address = a)
ON CONFLICT (chain_id, user_address) DO NOTHING

-- pending_openings --
SELECT user_address FROM wallet_scopes WHERE chain_id = $1 AND opened_block IS NULL ORDER BY user_address LIMIT $2

-- unopened --
-- Of these addresses, those whose own balance is not followed yet on the chain.
SELECT a AS user_address FROM unnest($2::text[]) AS a
WHERE NOT EXISTS (
    SELECT FROM wallet_scopes AS s WHERE s.chain_id = $1 AND s.user_address = a AND s.opened_block IS NOT NULL
)

-- open_scopes --
UPDATE wallet_scopes SET opened_block = $3 WHERE chain_id = $1 AND user_address = ANY ($2::text[])

-- due_buckets --
SELECT chain_id, wallet, user_address, bucket_id, name, raw_name, active, monthly_limit::text, spent::text,
       period_start, delegates, shared
FROM buckets WHERE chain_id = $1 AND spent > 0 AND period_start <= $2 ORDER BY bucket_id

-- buckets_of --
SELECT chain_id, wallet, user_address, bucket_id, name, raw_name, active, monthly_limit::text, spent::text,
       period_start, delegates, shared
FROM buckets WHERE user_address = ANY ($2::text[]) AND ($1::bigint IS NULL OR chain_id = $1)
ORDER BY bucket_id

-- balances_of --
SELECT user_address, chain_id, scope, wallet, bucket_id, token, amount::text
FROM balances WHERE user_address = ANY ($2::text[]) AND ($1::bigint IS NULL OR chain_id = $1)

-- save_buckets --
INSERT INTO buckets (chain_id, wallet, user_address, bucket_id, name, raw_name, active, monthly_limit, spent,
                     period_start, delegates, shared)
SELECT chain_id, wallet, user_address, bucket_id, name, raw_name, active, monthly_limit::numeric, spent::numeric,
       period_start, CASE WHEN delegates = '' THEN '{}'::text[] ELSE string_to_array(delegates, ',') END,
       shared
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::boolean[], $8::text[],
            $9::text[], $10::timestamptz[], $11::text[], $12::boolean[])
     AS b (chain_id, wallet, user_address, bucket_id, name, raw_name, active, monthly_limit, spent, period_start,
           delegates, shared)
ON CONFLICT (bucket_id) DO UPDATE SET
    active = excluded.active, monthly_limit = excluded.monthly_limit, spent = excluded.spent,
    period_start = excluded.period_start, delegates = excluded.delegates,
    shared = excluded.shared

-- save_balances --
INSERT INTO balances (user_address, chain_id, scope, wallet, bucket_id, token, amount)
SELECT user_address, chain_id, scope, wallet, bucket_id, token, amount::numeric
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
     AS b (user_address, chain_id, scope, wallet, bucket_id, token, amount)
ON CONFLICT (user_address, chain_id, scope, wallet, bucket_id, token) DO UPDATE SET amount = excluded.amount

-- wallets_of_chain --
SELECT address, user_address FROM wallets WHERE chain_id = $1

-- save_wallets --
INSERT INTO wallets (chain_id, address, user_address, created_block)
SELECT $1, address, user_address, $4 FROM unnest($2::text[], $3::text[]) AS w (address, user_address)
ON CONFLICT (chain_id, address) DO UPDATE SET user_address = excluded.user_address
