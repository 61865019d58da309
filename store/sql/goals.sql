-- of_users --
-- Active goals of these users, and those of these ids though they were deleted, in the order they were made.
SELECT g.user_address, g.goal_id, g.goal_name, g.target_amount, g.current_amount, g.unpriced, g.target_date,
       g.category_id::text AS category_id, coalesce(p.custom_name, c.name) AS category, g.link_kind, g.chain_id,
       g.link_id, g.yield_earned, g.apy, g.started_on, g.told_on, g.completed_at, g.completed_block, g.is_active,
       g.revision, g.created_at, u.time_zone, (
           SELECT jsonb_agg(jsonb_build_array(m.milestone, m.event_id, m.notified, m.amount::text, m.chain_id,
                                              m.block_number) ORDER BY m.milestone)
           FROM goal_milestones AS m WHERE m.user_address = g.user_address AND m.goal_id = g.goal_id
       ) AS milestones
FROM savings_goals AS g
JOIN users AS u ON u.address = g.user_address
LEFT JOIN categories AS c ON c.id = g.category_id
LEFT JOIN user_categories AS p ON p.user_address = g.user_address AND p.category_id = g.category_id
WHERE g.user_address = ANY ($1::text[]) AND (g.is_active OR g.goal_id = ANY ($2::text[]))
ORDER BY g.user_address, g.created_at, g.goal_id

-- held --
-- Raw amounts per token behind the goals of these links: what a bucket holds, or what the canonical operations of an
-- identifier put in and took out, yield that came out with it aside: less than nothing lies nowhere. A transfer between
-- accounts names no direction, so it moves nothing here.
SELECT g.user_address, g.goal_id, h.token, h.amount::text AS amount
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[]) AS g (user_address, goal_id, kind, chain_id, id)
CROSS JOIN LATERAL (
    SELECT b.token, b.amount FROM balances AS b
    WHERE g.kind = 'bucket' AND b.user_address = g.user_address AND b.chain_id = g.chain_id AND b.scope = 'bucket'
        AND b.bucket_id = g.id
    UNION ALL
    SELECT t.token, greatest(sum(CASE t.direction WHEN 'in' THEN t.amount WHEN 'out' THEN -t.amount ELSE 0 END), 0)
    FROM transactions AS t
    WHERE g.kind = 'v2' AND t.user_address = g.user_address AND t.chain_id = g.chain_id AND t.identifier = g.id
        AND t.canonical AND t.role = 'owner' AND t.type = 'account_operation' AND t.account_type = 'savings'
    GROUP BY t.token
) AS h
WHERE h.amount <> 0

-- save --
INSERT INTO savings_goals (user_address, goal_id, goal_name, target_amount, current_amount, unpriced, target_date,
                           category_id, link_kind, chain_id, link_id, yield_earned, apy, started_on, told_on,
                           completed_at, completed_block, is_active, revision, created_at)
SELECT user_address, goal_id, goal_name, target::numeric, current::numeric, unpriced, target_date, category_id::uuid,
       link_kind, chain_id, link_id, yield_earned::numeric, apy::numeric, started_on, told_on, completed_at,
       completed_block, is_active, revision, created_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::date[], $8::text[], $9::text[],
            $10::bigint[], $11::text[], $12::text[], $13::text[], $14::date[], $15::date[], $16::timestamptz[],
            $17::bigint[], $18::boolean[], $19::int[], $20::timestamptz[])
     AS k (user_address, goal_id, goal_name, target, current, unpriced, target_date, category_id, link_kind, chain_id,
           link_id, yield_earned, apy, started_on, told_on, completed_at, completed_block, is_active, revision,
           created_at)
ON CONFLICT (user_address, goal_id) DO UPDATE SET
    goal_name = excluded.goal_name, target_amount = excluded.target_amount, current_amount = excluded.current_amount,
    unpriced = excluded.unpriced, target_date = excluded.target_date, category_id = excluded.category_id,
    link_kind = excluded.link_kind, chain_id = excluded.chain_id, link_id = excluded.link_id,
    yield_earned = excluded.yield_earned, apy = excluded.apy, told_on = excluded.told_on,
    completed_at = excluded.completed_at, completed_block = excluded.completed_block, is_active = excluded.is_active,
    revision = excluded.revision, updated_at = now()

-- keep_milestones --
INSERT INTO goal_milestones (user_address, goal_id, milestone, event_id, notified, amount, chain_id, block_number,
                             reached_at)
SELECT user_address, goal_id, milestone, event_id, notified, amount::numeric, chain_id, block_number, $9
FROM unnest($1::text[], $2::text[], $3::smallint[], $4::text[], $5::boolean[], $6::text[], $7::bigint[], $8::bigint[])
     AS k (user_address, goal_id, milestone, event_id, notified, amount, chain_id, block_number)

-- drop_milestones --
DELETE FROM goal_milestones AS m
USING unnest($1::text[], $2::text[], $3::smallint[]) AS k (user_address, goal_id, milestone)
WHERE m.user_address = k.user_address AND m.goal_id = k.goal_id AND m.milestone = k.milestone

-- unlink_milestones --
-- What was told of another link is not taken back by that link's chain.
UPDATE goal_milestones SET chain_id = NULL, block_number = NULL WHERE user_address = $1 AND goal_id = $2

-- days_over --
-- Users with a goal whose days or prices may stand otherwise than they were told: a day has ended in their zone.
SELECT DISTINCT g.user_address FROM savings_goals AS g JOIN users AS u ON u.address = g.user_address
WHERE g.is_active AND (g.target_date IS NOT NULL OR g.link_kind IS NOT NULL)
    AND g.told_on <> ($1::timestamptz AT TIME ZONE u.time_zone)::date
ORDER BY g.user_address LIMIT $2

-- has_bucket --
SELECT EXISTS (SELECT FROM buckets WHERE bucket_id = $2 AND user_address = $1 AND chain_id = $3)

-- zone --
-- The user's zone; null for an address that is not registered.
SELECT time_zone FROM users WHERE address = $1
