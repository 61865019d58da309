-- record_digests --
-- Users of these zones who want this digest and have no letter of its subject yet. One row per user and period.
INSERT INTO mails (user_address, subject, kind, facts, not_before, created_at)
SELECT u.address, $3, 'digest', $4, $5, $5 FROM users AS u
WHERE u.digest = $1 AND u.time_zone = $2 AND u.email IS NOT NULL
    AND NOT EXISTS (SELECT FROM mails AS m WHERE m.user_address = u.address AND m.subject = $3)
LIMIT $6
ON CONFLICT (user_address, subject) DO NOTHING
RETURNING 1

-- digest_zones --
SELECT DISTINCT time_zone FROM users WHERE digest = $1 AND email IS NOT NULL

-- record_notices --
-- Inbox entries of some age that still stand unread, where their user asked for e-mail of that kind.
INSERT INTO mails (user_address, subject, kind, facts, not_before, created_at)
SELECT n.user_address, 'notice:' || n.id, n.kind, jsonb_build_object('notification', n.id), $3, $3
FROM notifications AS n
JOIN notification_preferences AS p
    ON p.user_address = n.user_address AND p.kind = n.kind AND p.channel = 'email' AND p.enabled
JOIN users AS u ON u.address = n.user_address AND u.email IS NOT NULL
WHERE n.created_at > $1 AND n.created_at <= $2 AND n.corrected_at IS NULL AND n.read_at IS NULL
    AND NOT EXISTS (SELECT FROM mails AS m WHERE m.user_address = n.user_address AND m.subject = 'notice:' || n.id)
LIMIT $4
ON CONFLICT (user_address, subject) DO NOTHING
RETURNING 1

-- claim --
UPDATE mails SET state = 'sending', attempts = attempts + 1, not_before = $2, updated_at = now()
WHERE id IN (
    SELECT id FROM mails WHERE state IN ('due', 'sending') AND not_before <= $1
    ORDER BY not_before LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING id, user_address, subject, kind, facts, attempts, created_at

-- settle --
UPDATE mails SET state = $3, reason = $4, not_before = $5, updated_at = now()
WHERE id = $1 AND attempts = $2 AND state = 'sending'

-- addressee --
SELECT address, email, time_zone, digest FROM users WHERE address = $1

-- notice --
-- Only while there is still something to tell.
SELECT n.title, n.body, n.severity FROM notifications AS n
JOIN notification_preferences AS p
    ON p.user_address = n.user_address AND p.kind = n.kind AND p.channel = 'email' AND p.enabled
WHERE n.user_address = $1 AND n.id = $2 AND n.corrected_at IS NULL AND n.read_at IS NULL

-- spent --
-- What counts as spent: a user's own spends, and outgoing transfers that the user gave a category.
SELECT coalesce(uc.custom_name, c.name) AS name,
       coalesce(sum(t.usd) FILTER (WHERE t.block_time >= $3), 0) AS now,
       coalesce(sum(t.usd) FILTER (WHERE t.block_time < $3), 0) AS before,
       count(*) FILTER (WHERE t.usd IS NULL AND t.block_time >= $3) AS unpriced,
       count(*) FILTER (WHERE t.usd IS NULL AND t.block_time < $3) AS unpriced_before
FROM transactions AS t
LEFT JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
LEFT JOIN categories AS c ON c.id = a.category_id
LEFT JOIN user_categories AS uc ON uc.user_address = t.user_address AND uc.category_id = a.category_id
WHERE t.user_address = $1 AND t.canonical AND t.role = 'owner' AND t.block_time >= $2 AND t.block_time < $4
    AND (t.type = 'spend'
         OR (t.type = 'transfer' AND t.direction = 'out' AND a.category_id IS NOT NULL
             AND t.counterparty <> t.user_address))
GROUP BY coalesce(uc.custom_name, c.name)
ORDER BY now DESC, before DESC, name

-- budgets --
-- Category budgets and what counts against them in a month, the most used first.
SELECT coalesce(uc.custom_name, c.name) AS name, uc.monthly_budget AS budget, coalesce(m.spent, 0) AS spent,
       m.unpriced
FROM user_categories AS uc
JOIN categories AS c ON c.id = uc.category_id AND c.is_active
LEFT JOIN LATERAL (
    SELECT sum(t.usd) AS spent, count(*) FILTER (WHERE t.usd IS NULL) AS unpriced
    FROM transactions AS t
    JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
    WHERE t.user_address = uc.user_address AND a.category_id = uc.category_id
        AND t.canonical AND t.role = 'owner' AND t.block_time >= $2 AND t.block_time < $3
        AND (t.type = 'spend'
             OR (t.type = 'transfer' AND t.direction = 'out' AND t.counterparty <> t.user_address))
) AS m ON true
WHERE uc.user_address = $1 AND uc.monthly_budget IS NOT NULL
ORDER BY coalesce(m.spent, 0) / nullif(uc.monthly_budget, 0) DESC NULLS LAST, name

-- alerts --
SELECT count(*) FROM notifications
WHERE user_address = $1 AND kind = 'spending_alert' AND created_at >= $2 AND created_at < $3 AND corrected_at IS NULL

-- origin --
SELECT user_address, kind FROM mails WHERE id = $1

-- stop_digest --
UPDATE users SET digest = 'off', revision = revision + 1, updated_at = $2 WHERE address = $1 AND digest <> 'off'

-- prune --
WITH gone AS (
    DELETE FROM mails WHERE id IN (
        SELECT id FROM mails WHERE created_at < $1 ORDER BY created_at LIMIT $2
    ) RETURNING 1
)
SELECT count(*) FROM gone
