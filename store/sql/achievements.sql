-- concerned --
-- Signed-in users whom a block told anything, or has a ledger row of, canonical or not.
SELECT DISTINCT a.user_address
FROM (
    SELECT l.user_address FROM user_log AS l WHERE l.chain_id = $1 AND l.cause = $3
    UNION ALL
    SELECT t.user_address FROM transactions AS t WHERE t.chain_id = $1 AND t.block_hash = $2
) AS a
JOIN user_counters AS c ON c.user_address = a.user_address AND c.opened_at IS NOT NULL
ORDER BY a.user_address

-- people --
-- Counts that need no ledger row, of signed-in users among these. Goals and buckets that were deleted stay counted.
SELECT u.address AS user_address, u.time_zone, c.opened_at,
       (SELECT count(*) FROM buckets AS b WHERE b.user_address = u.address) AS buckets,
       (SELECT count(*) FROM savings_goals AS g WHERE g.user_address = u.address) AS goals,
       (SELECT count(*) FROM savings_goals AS g WHERE g.user_address = u.address AND g.completed_at IS NOT NULL)
           AS goals_reached,
       (SELECT count(*) FROM transaction_categories AS t WHERE t.user_address = u.address AND t.is_manual_override)
           AS sorted,
       (SELECT count(*) FROM friends AS f WHERE f.user_address = u.address AND f.state = 'friends') AS friends
FROM users AS u JOIN user_counters AS c ON c.user_address = u.address AND c.opened_at IS NOT NULL
WHERE u.address = ANY ($1::text[])

-- days --
-- What a user's ledger has on each day of their zone. Set aside: paid into a vault, a lock or an account for savings or
-- investments, or into a bucket that a goal is kept by.
SELECT t.user_address, (t.block_time AT TIME ZONE u.time_zone)::date AS day,
       count(*) FILTER (WHERE t.type = 'spend') AS spends,
       count(*) FILTER (WHERE t.type = 'spend' AND t.spender <> t.user_address) AS delegated,
       coalesce(sum(t.usd) FILTER (WHERE t.type = 'deposit'), 0) AS deposited,
       count(*) FILTER (WHERE t.type IN ('vault_deposit', 'yield_lock')
           OR (t.type = 'account_operation' AND t.account_type = 'investment' AND t.direction = 'in')) AS investments,
       count(*) FILTER (WHERE t.type = 'yield_lock') AS locks,
       count(*) FILTER (WHERE t.type IN ('vault_deposit', 'yield_lock')
           OR (t.type = 'account_operation' AND t.account_type <> 'spending' AND t.direction = 'in')
           OR (t.type = 'bucket_funding' AND EXISTS (
               SELECT FROM savings_goals AS g WHERE g.user_address = t.user_address AND g.link_kind = 'bucket'
                   AND g.link_id = t.bucket_id))) AS savings,
       array_agg(DISTINCT t.chain_id) AS chains
FROM transactions AS t JOIN users AS u ON u.address = t.user_address
WHERE t.user_address = ANY ($1::text[]) AND t.canonical AND t.role = 'owner'
GROUP BY t.user_address, day ORDER BY t.user_address, day

-- months --
-- What counted for budgets in each month of the user's zone, by category, from the first budget on.
SELECT t.user_address, date_trunc('month', t.block_time AT TIME ZONE u.time_zone)::date AS month, a.category_id,
       coalesce(sum(t.usd), 0) AS spent, count(*) FILTER (WHERE t.usd IS NULL) AS unpriced, count(*) AS amounts
FROM (SELECT user_address, min(since) AS since FROM budget_history WHERE user_address = ANY ($1::text[])
      GROUP BY user_address) AS h
JOIN users AS u ON u.address = h.user_address
JOIN transactions AS t ON t.user_address = h.user_address AND t.canonical AND t.role = 'owner'
    AND t.block_time >= h.since - interval '32 days'
LEFT JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
WHERE t.type = 'spend'
    OR (t.type = 'transfer' AND t.direction = 'out' AND a.category_id IS NOT NULL AND t.counterparty <> t.user_address)
GROUP BY t.user_address, month, a.category_id

-- budgets --
SELECT user_address, since, total, by_category FROM budget_history
WHERE user_address = ANY ($1::text[]) ORDER BY user_address, since

-- points --
-- How positions stood after each block that changed them, with what that block paid in: dollars, base units of the asset,
-- and the event that told of it. A V2 account's row names what lies in it, its position also where.
SELECT p.user_address, p.chain_id, p.position_id, p.block_number, p.block_time, p.shares, p.principal,
       i.contract, d.paid, d.paid_raw, d.event_id
FROM position_points AS p
JOIN investment_positions AS i ON i.user_address = p.user_address AND i.position_id = p.position_id
LEFT JOIN LATERAL (
    SELECT sum(t.usd) AS paid, sum(t.amount) AS paid_raw, max(t.event_id) AS event_id FROM transactions AS t
    WHERE t.user_address = p.user_address AND t.chain_id = p.chain_id AND t.block_hash = p.block_hash AND t.canonical
        AND t.role = 'owner' AND t.token = i.asset_address
        AND ((t.type IN ('vault_deposit', 'yield_lock') AND t.identifier = p.position_id)
            OR (t.type = 'account_operation' AND t.direction = 'in'
                AND concat_ws(':', t.chain_id, t.wallet, t.identifier) = p.position_id))
) AS d ON true
WHERE p.user_address = ANY ($1::text[])
ORDER BY p.user_address, p.block_time, p.chain_id, p.block_number, p.position_id

-- held --
SELECT user_address, code, round, event_id, notified, causes, unlocked_at FROM achievements
WHERE user_address = ANY ($1::text[]) AND revoked_at IS NULL ORDER BY user_address, unlocked_at, code

-- rounds --
-- How often each was unlocked so far.
SELECT code, max(round) AS round FROM achievements WHERE user_address = $1 GROUP BY code

-- unlock --
INSERT INTO achievements (user_address, code, round, event_id, notified, causes, unlocked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- revoke --
UPDATE achievements SET revoked_at = $4, revoke_causes = $5
WHERE user_address = $1 AND code = $2 AND round = $3

-- crossing --
-- The event of the first ledger row with which there were so many of a kind, or more dollars than that of a kind.
SELECT event_id FROM (
    SELECT t.event_id, sum(CASE WHEN $2 = 'deposited' THEN coalesce(t.usd, 0) ELSE 1 END)
               OVER (ORDER BY t.block_time, t.id) AS so_far, t.block_time, t.id
    FROM transactions AS t
    WHERE t.user_address = $1 AND t.canonical AND t.role = 'owner' AND CASE $2
        WHEN 'deposited' THEN t.type = 'deposit'
        WHEN 'spends' THEN t.type = 'spend'
        WHEN 'delegated' THEN t.type = 'spend' AND t.spender <> t.user_address
        WHEN 'locks' THEN t.type = 'yield_lock'
        ELSE t.type IN ('vault_deposit', 'yield_lock')
            OR (t.type = 'account_operation' AND t.account_type = 'investment' AND t.direction = 'in') END
) AS r
WHERE CASE WHEN $2 = 'deposited' THEN so_far > $3::numeric ELSE so_far >= $3::numeric END
ORDER BY block_time, id LIMIT 1

-- milestone --
-- The event that told of the nth goal that was reached.
SELECT event_id FROM goal_milestones WHERE user_address = $1 AND milestone = 100
ORDER BY reached_at, goal_id OFFSET $2 LIMIT 1

-- month_told --
-- The event that told of the first month that begins at this instant or after it.
SELECT event_id FROM user_log WHERE user_address = $1 AND event = 'budget_update' AND ts >= $2 ORDER BY seq LIMIT 1

-- told --
-- Which of these are in the user's log.
SELECT event_id FROM user_log WHERE user_address = $1 AND event_id = ANY ($2::text[])

-- last_change --
-- The newest event beyond an event of the same log that may have moved a figure; none when nothing of that is kept.
SELECT event_id FROM user_log
WHERE user_address = $1 AND seq > coalesce((SELECT seq FROM user_log WHERE user_address = $1 AND event_id = $2), 0)
    AND event IN ('transaction_reverted', 'transaction_categorized', 'new_transaction', 'bucket_update', 'goal_update',
                  'budget_update', 'yield_update', 'resync')
ORDER BY seq DESC LIMIT 1

-- due --
SELECT user_address FROM achievement_looks WHERE next_at <= $1 ORDER BY next_at, user_address LIMIT $2

-- begin --
INSERT INTO achievement_looks (user_address, next_at) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- look_again --
INSERT INTO achievement_looks (user_address, next_at)
SELECT * FROM unnest($1::text[], $2::timestamptz[])
ON CONFLICT (user_address) DO UPDATE SET next_at = excluded.next_at
