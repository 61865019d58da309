-- people --
-- Signed-in users among these: nobody else is told anything, so nobody else needs budgets.
SELECT u.address, u.time_zone, u.alert_thresholds, u.monthly_budget,
       EXISTS (SELECT FROM category_memory AS m WHERE m.user_address = u.address)
           OR EXISTS (SELECT FROM category_rules AS r WHERE r.user_address = u.address) AS has_habits,
       p.profiles,
       EXISTS (SELECT FROM savings_goals AS g WHERE g.user_address = u.address AND g.is_active) AS has_goals
FROM users AS u JOIN user_counters AS c ON c.user_address = u.address
LEFT JOIN month_profiles AS p ON p.user_address = u.address
WHERE u.address = ANY ($1::text[]) AND c.opened_at IS NOT NULL
ORDER BY u.address

-- category_looks --
-- Default categories, and those of these users, as each of them sees them.
SELECT c.owner, c.id, c.name, c.icon_url, c.color_hex, c.is_active FROM categories AS c
WHERE c.owner IS NULL OR c.owner = ANY ($1::text[])

-- category_customs --
SELECT user_address, category_id, custom_name, custom_icon_url, custom_color_hex, monthly_budget
FROM user_categories WHERE user_address = ANY ($1::text[])

-- rules --
SELECT user_address, field, value, category_id FROM category_rules WHERE user_address = ANY ($1::text[])

-- memory --
SELECT m.user_address, m.feature, m.category_id, m.count
FROM unnest($1::text[], $2::text[]) AS k (user_address, feature)
JOIN category_memory AS m ON m.user_address = k.user_address AND m.feature = k.feature

-- figures --
-- What counts: a user's own spends, and outgoing transfers that the user gave a category; never what a reorg took back.
-- Each user's month is given as instants, since it is a month of that user's zone.
SELECT t.user_address, a.category_id, coalesce(sum(t.usd), 0) AS spent, count(*) FILTER (WHERE t.usd IS NULL) AS unpriced
FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS m (user_address, since, until)
JOIN transactions AS t ON t.user_address = m.user_address AND t.canonical AND t.role = 'owner'
    AND t.block_time >= m.since AND t.block_time < m.until
LEFT JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
WHERE t.type = 'spend'
    OR (t.type = 'transfer' AND t.direction = 'out' AND a.category_id IS NOT NULL AND t.counterparty <> t.user_address)
GROUP BY t.user_address, a.category_id

-- edges --
SELECT user_address, scope, subject, period_start, edge, event_id, armed, round
FROM alert_edges WHERE user_address = ANY ($1::text[]) AND period_start >= $2

-- save_edges --
INSERT INTO alert_edges (user_address, scope, subject, period_start, edge, event_id, armed, round, fired_at)
SELECT *, now() FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::boolean[],
                            $8::smallint[])
ON CONFLICT (user_address, scope, subject, period_start, edge) DO UPDATE SET
    event_id = excluded.event_id, armed = excluded.armed, round = excluded.round,
    fired_at = CASE WHEN excluded.armed THEN alert_edges.fired_at ELSE now() END

-- assigned --
SELECT user_address, transaction_id, category_id, confidence_score, source, reasoning, is_manual_override, revision
FROM transaction_categories AS a
JOIN unnest($1::text[], $2::text[]) AS k (u, id) ON a.user_address = k.u AND a.transaction_id = k.id

-- save_assigned --
-- Rows that the ledger has already are changed by it, for persistence: their version grows, their change is told, and
-- their block is asked for. A block's own rows are written after their categories and tell it themselves.
WITH saved AS (
INSERT INTO transaction_categories (user_address, transaction_id, chain_id, category_id, confidence_score, source,
                                    reasoning, is_manual_override, revision)
SELECT u, id, split_part(id, ':', 1)::bigint, category_id, confidence::numeric, source, reasoning, source = 'manual', rev
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::int[])
     AS k (u, id, category_id, confidence, source, reasoning, rev)
ON CONFLICT (user_address, transaction_id) DO UPDATE SET
    category_id = excluded.category_id, confidence_score = excluded.confidence_score, source = excluded.source,
    reasoning = excluded.reasoning, is_manual_override = excluded.is_manual_override, revision = excluded.revision,
    updated_at = now()
RETURNING user_address, transaction_id
), changed AS (
    UPDATE transactions AS t SET version = nextval('ledger_version'), updated_at = now()
    FROM saved AS s WHERE t.user_address = s.user_address AND t.id = s.transaction_id AND t.canonical
    RETURNING t.user_address, t.chain_id, t.block_number, t.block_hash, t.tx_hash, t.n
), asked AS (
    INSERT INTO outbox (queue, job, args)
    SELECT DISTINCT ON (chain_id) 'quick', 'persist_block',
           jsonb_build_object('chainId', chain_id, 'number', block_number, 'hash', block_hash)
    FROM changed ORDER BY chain_id, block_number DESC
    ON CONFLICT (job, args) DO UPDATE SET
        created_at = greatest(clock_timestamp(), outbox.created_at + interval '1 microsecond'), enqueued_at = NULL
)
INSERT INTO ledger_changes (user_address, chain_id, block_number, block_hash, tx_hash, n)
SELECT user_address, chain_id, block_number, block_hash, tx_hash, n FROM changed

-- save_memory --
INSERT INTO category_memory (user_address, feature, category_id, count)
SELECT $1, feature, category_id, n FROM unnest($2::text[], $3::uuid[], $4::int[]) AS k (feature, category_id, n)
ON CONFLICT (user_address, feature, category_id) DO UPDATE SET count = excluded.count

-- subjects --
-- Canonical owner rows of these transaction ids, with the generation of their block.
SELECT t.id, t.chain_id, t.block_hash, b.generation, t.block_time, t.type, t.direction, t.counterparty, t.bucket, t.usd
FROM transactions AS t JOIN blocks AS b ON b.chain_id = t.chain_id AND b.hash = t.block_hash
WHERE t.user_address = $1 AND t.id = ANY ($2::text[]) AND t.canonical AND t.role = 'owner'

-- similar --
-- Canonical spends of the user that look like one to its owner: same payee, no manual choice yet. Newest first.
SELECT t.id FROM transactions AS t
LEFT JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
WHERE t.user_address = $1 AND t.canonical AND t.role = 'owner' AND t.counterparty = $2
    AND (t.type = 'spend' OR (t.type = 'transfer' AND t.direction = 'out')) AND coalesce(a.source, '') <> 'manual'
    AND t.id <> $3
ORDER BY t.block_time DESC LIMIT $4

-- set_total_budget --
UPDATE users SET monthly_budget = $2, revision = revision + 1, updated_at = now() WHERE address = $1

-- months_over --
-- Users with a budget to whom the month that it now is in their zone was not told yet.
SELECT u.address FROM users AS u
WHERE (u.monthly_budget IS NOT NULL OR EXISTS (
        SELECT FROM user_categories AS c WHERE c.user_address = u.address AND c.monthly_budget IS NOT NULL))
    AND u.budget_month IS DISTINCT FROM date_trunc('month', $1::timestamptz AT TIME ZONE u.time_zone)::date
ORDER BY u.address LIMIT $2

-- tell_month --
-- False when it was told meanwhile.
UPDATE users AS u SET budget_month = date_trunc('month', $2::timestamptz AT TIME ZONE u.time_zone)::date
WHERE u.address = $1
    AND u.budget_month IS DISTINCT FROM date_trunc('month', $2::timestamptz AT TIME ZONE u.time_zone)::date
RETURNING true

-- keep_history --
-- How the user's budgets stand in this transaction, unless that is how they stood; the last word of an instant counts.
WITH stand AS (
    SELECT u.address, u.monthly_budget AS total, coalesce((
        SELECT jsonb_object_agg(c.category_id, c.monthly_budget::text) FROM user_categories AS c
        JOIN categories AS k ON k.id = c.category_id AND k.is_active
        WHERE c.user_address = u.address AND c.monthly_budget IS NOT NULL), '{}') AS by_category
    FROM users AS u WHERE u.address = $1
)
INSERT INTO budget_history (user_address, since, total, by_category)
SELECT s.address, $2, s.total, s.by_category FROM stand AS s
LEFT JOIN LATERAL (
    SELECT h.total, h.by_category FROM budget_history AS h WHERE h.user_address = s.address ORDER BY since DESC LIMIT 1
) AS h ON true
WHERE (s.total, s.by_category) IS DISTINCT FROM (h.total, coalesce(h.by_category, '{}'))
ON CONFLICT (user_address, since) DO UPDATE SET total = excluded.total, by_category = excluded.by_category
