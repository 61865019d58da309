-- record --
INSERT INTO notifications (id, user_address, event_id, kind, title, body, severity, transaction_id, facts, created_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::jsonb[], $10::timestamptz[])
ON CONFLICT (user_address, event_id) DO NOTHING

-- unread --
SELECT user_address, count(*) AS unread FROM notifications
WHERE user_address = ANY ($1::text[]) AND read_at IS NULL AND corrected_at IS NULL
GROUP BY user_address

-- correct --
-- Returns one row per notification that counted as unread until now.
WITH corrected AS (
    UPDATE notifications SET corrected_at = $3
    WHERE user_address = $1 AND event_id = ANY ($2::text[]) AND corrected_at IS NULL
    RETURNING read_at
)
SELECT count(*) FROM corrected WHERE read_at IS NULL

-- listed --
-- Newest first; what was taken back is not shown any more.
SELECT id, user_address, event_id, kind, title, body, severity, transaction_id, facts, created_at, read_at
FROM notifications
WHERE user_address = $1 AND corrected_at IS NULL AND (created_at, id) < ($2, $3)
ORDER BY created_at DESC, id DESC
LIMIT $4

-- read_ids --
UPDATE notifications SET read_at = $3
WHERE user_address = $1 AND id = ANY ($2::uuid[]) AND read_at IS NULL AND corrected_at IS NULL
RETURNING id

-- read_up_to --
-- The one named and every older one, in the order of the list.
UPDATE notifications AS n SET read_at = $3
FROM notifications AS mark
WHERE mark.user_address = $1 AND mark.id = $2
  AND n.user_address = $1 AND n.read_at IS NULL AND n.corrected_at IS NULL
  AND (n.created_at, n.id) <= (mark.created_at, mark.id)
RETURNING n.id

-- known --
SELECT id FROM notifications WHERE user_address = $1 AND id = ANY ($2::uuid[])

-- preferences --
SELECT user_address, kind, channel, enabled FROM notification_preferences WHERE user_address = ANY ($1::text[])

-- set_preferences --
INSERT INTO notification_preferences (user_address, kind, channel, enabled)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::boolean[])
ON CONFLICT (user_address, kind, channel) DO UPDATE SET enabled = excluded.enabled
