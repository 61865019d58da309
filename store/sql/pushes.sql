-- record --
-- seq is that of the event in its user's log; a user without a log, or an event that is not in it, gets no push.
-- The same effect again (another block included its transaction) is told at most once: a push that waits is brought up
-- to date, one that was taken back before it was sent waits again, one the phone shows stays, one the phone was told is
-- taken back is shown again without a sound.
INSERT INTO pushes (user_address, subject, event_id, latest_event_id, seq, kind, facts, severity, transaction_id,
                    not_before, created_at)
SELECT DISTINCT ON (i.user_address, i.subject)
       i.user_address, i.subject, i.event_id, i.event_id, l.seq, i.kind, i.facts, i.severity, i.transaction_id, $8, $9
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::text[], $7::text[])
         AS i (user_address, subject, event_id, kind, facts, severity, transaction_id)
JOIN user_log AS l ON l.user_address = i.user_address AND l.event_id = i.event_id
ORDER BY i.user_address, i.subject, l.seq
ON CONFLICT (user_address, subject) DO UPDATE SET
    latest_event_id = excluded.latest_event_id,
    transaction_id = excluded.transaction_id,
    reverted_at = NULL,
    updated_at = now(),
    event_id = CASE WHEN pushes.state IN ('sending', 'sent', 'held') THEN pushes.event_id ELSE excluded.event_id END,
    seq = CASE WHEN pushes.state IN ('sending', 'sent', 'held') THEN pushes.seq ELSE excluded.seq END,
    facts = CASE WHEN pushes.state IN ('sending', 'sent', 'held') THEN pushes.facts ELSE excluded.facts END,
    not_before = CASE WHEN pushes.state IN ('sending', 'sent', 'held') THEN pushes.not_before
                      ELSE excluded.not_before END,
    silent = pushes.silent OR pushes.state IN ('replacing', 'replaced'),
    delivered = CASE WHEN pushes.state IN ('replacing', 'replaced') THEN '{}' ELSE pushes.delivered END,
    attempts = CASE WHEN pushes.state IN ('sending', 'sent', 'held') THEN pushes.attempts ELSE 0 END,
    created_at = CASE WHEN pushes.state IN ('sending', 'sent', 'held') THEN pushes.created_at
                      ELSE excluded.created_at END,
    state = CASE WHEN pushes.state IN ('replacing', 'replaced') THEN 'due'
                 WHEN pushes.state = 'dropped' AND pushes.reason = 'reverted' THEN 'due'
                 ELSE pushes.state END
WHERE pushes.latest_event_id <> excluded.latest_event_id

-- take_back --
-- What no phone has is dropped; what a phone may have stays for the replacement.
UPDATE pushes SET
    reverted_at = $3,
    updated_at = now(),
    reason = 'reverted',
    state = CASE WHEN state <> 'due' THEN state
                 WHEN delivered <> '{}' THEN 'sent'
                 WHEN silent THEN 'replaced'
                 ELSE 'dropped' END
WHERE user_address = $1 AND latest_event_id = ANY ($2::text[]) AND reverted_at IS NULL

-- claim --
-- `sending` before the provider is called: whatever dies in between, the same push is sent again, under the same key.
UPDATE pushes SET state = 'sending', attempts = attempts + 1, not_before = $2, updated_at = now()
WHERE id IN (
    SELECT id FROM pushes WHERE state IN ('due', 'sending') AND not_before <= $1
    ORDER BY not_before LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING id, user_address, subject, transaction_id, event_id, seq, kind, facts, severity, silent,
          delivered, attempts, reverted_at, created_at,
          transaction_id IS NULL OR EXISTS (
              SELECT FROM transactions AS t
              WHERE t.user_address = pushes.user_address AND t.id = pushes.transaction_id AND t.canonical
          ) AS stands

-- claim_reverted --
-- Pushes whose effect stayed taken back long enough that no block will include it again.
UPDATE pushes SET state = 'replacing', attempts = CASE WHEN state = 'sent' THEN 1 ELSE attempts + 1 END,
                  not_before = $3, updated_at = now()
WHERE id IN (
    SELECT id FROM pushes
    WHERE (state = 'sent' AND reverted_at <= $2) OR (state = 'replacing' AND not_before <= $1)
    LIMIT $4 FOR UPDATE SKIP LOCKED
)
RETURNING id, user_address, subject, transaction_id, event_id, seq, kind, facts, severity, true AS silent, delivered,
          attempts, reverted_at, created_at, false AS stands

-- still --
-- The last look before the provider is called; locks nothing.
SELECT id FROM pushes WHERE id = ANY ($1::uuid[]) AND state = 'sending' AND reverted_at IS NULL

-- settle --
-- Only the attempt that claimed it may settle it. A push that was taken back meanwhile is not tried again: what reached
-- a phone stays for the replacement.
UPDATE pushes AS p SET
    state = CASE WHEN s.state = 'due' AND p.reverted_at IS NOT NULL
                 THEN CASE WHEN s.delivered <> '{}' THEN 'sent' WHEN p.silent THEN 'replaced' ELSE 'dropped' END
                 ELSE s.state END,
    reason = CASE WHEN s.state = 'due' AND p.reverted_at IS NOT NULL THEN 'reverted' ELSE s.reason END,
    not_before = s.not_before, updated_at = now(),
    delivered = CASE WHEN s.reason = 'unknown' AND p.reverted_at IS NULL THEN p.delivered ELSE s.delivered END
FROM (SELECT $1::uuid AS id, $2::integer AS attempts, $3::text AS state, $4::text AS reason,
             $5::timestamptz AS not_before, $6::uuid[] AS delivered) AS s
WHERE p.id = s.id AND p.attempts = s.attempts AND p.state IN ('sending', 'replacing')

-- audience --
SELECT u.address, u.time_zone, u.locale, u.quiet_start, u.quiet_end, u.hide_amounts
FROM users AS u WHERE u.address = ANY ($1::text[])

-- prune --
WITH gone AS (
    DELETE FROM pushes WHERE id IN (
        SELECT id FROM pushes WHERE created_at < $1 ORDER BY created_at LIMIT $2
    ) RETURNING 1
)
SELECT count(*) FROM gone
