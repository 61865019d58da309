-- open --
-- An account that a reorg had closed keeps the name that its user gave it.
INSERT INTO user_accounts (user_address, chain_id, account_type, opened_block)
SELECT user_address, $1, account_type, $2 FROM unnest($3::text[], $4::text[]) AS a (user_address, account_type)
ORDER BY user_address, account_type
ON CONFLICT (user_address, chain_id, account_type) DO UPDATE SET opened_block = excluded.opened_block
WHERE user_accounts.opened_block IS NULL OR user_accounts.opened_block > excluded.opened_block

-- keep --
INSERT INTO preimages (chain_id, block_number, block_hash, relation, key, was)
SELECT $1, $2, $3, 'accounts', concat_ws('|', k.user_address, k.account_type), to_jsonb(a)
FROM unnest($4::text[], $5::text[]) AS k (user_address, account_type)
LEFT JOIN user_accounts AS a
    ON a.user_address = k.user_address AND a.chain_id = $1 AND a.account_type = k.account_type
ON CONFLICT DO NOTHING

-- restore --
-- One whose first cause turned out to be an earlier block, by a backfill, stays open.
UPDATE user_accounts AS a SET opened_block = (p.was ->> 'opened_block')::bigint FROM preimages AS p
WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'accounts' AND a.chain_id = $1
    AND a.opened_block = p.block_number
    AND a.user_address = split_part(p.key, '|', 1) AND a.account_type = split_part(p.key, '|', 2)

-- accounts_of --
SELECT user_address, chain_id, account_type, account_name, is_active
FROM user_accounts WHERE user_address = $1 AND opened_block IS NOT NULL
ORDER BY chain_id, account_type

-- account --
SELECT user_address, chain_id, account_type, account_name, is_active FROM user_accounts
WHERE user_address = $1 AND chain_id = $2 AND account_type = $3 AND opened_block IS NOT NULL
FOR UPDATE

-- saved --
-- What canonical operations of savings accounts of the planned contract put in and took out, by identifier: more can come
-- out of one than went in, which takes nothing from the others. A transfer names no direction, so it moves nothing.
SELECT chain_id, token, sum(amount)::text AS amount FROM (
    SELECT chain_id, token,
           greatest(sum(CASE direction WHEN 'in' THEN amount WHEN 'out' THEN -amount ELSE 0 END), 0) AS amount
    FROM transactions
    WHERE user_address = $1 AND canonical AND role = 'owner' AND type = 'account_operation' AND account_type = 'savings'
        AND identifier IS NOT NULL
    GROUP BY chain_id, token, identifier
) AS each_identifier
GROUP BY chain_id, token

-- change --
UPDATE user_accounts SET account_name = $4, is_active = $5, updated_at = now()
WHERE user_address = $1 AND chain_id = $2 AND account_type = $3
