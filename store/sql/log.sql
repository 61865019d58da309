-- open_counters --
-- Missing counter rows are inserted in address order, before they are locked.
INSERT INTO user_counters (user_address)
SELECT a FROM unnest($1::text[]) AS a
WHERE NOT EXISTS (SELECT FROM user_counters AS c WHERE c.user_address = a)
ORDER BY a
ON CONFLICT (user_address) DO NOTHING

-- lock_counters --
-- In address order, so that two transactions can't wait for each other.
SELECT user_address, epoch, seq, first_seq, opened_at
FROM user_counters WHERE user_address = ANY ($1::text[])
ORDER BY user_address FOR NO KEY UPDATE

-- append --
INSERT INTO user_log (user_address, seq, event_id, event, payload, ts, chain_id, cause, transaction_id)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[],
                     $8::text[], $9::text[])

-- move_counters --
UPDATE user_counters AS c SET seq = m.seq
FROM unnest($1::text[], $2::bigint[]) AS m (user_address, seq)
WHERE c.user_address = m.user_address

-- known_events --
-- Which of these event ids are in their users' logs already: the second time is a no-op.
SELECT l.user_address, l.event_id
FROM unnest($1::text[], $2::text[]) AS k (user_address, event_id)
JOIN user_log AS l ON l.user_address = k.user_address AND l.event_id = k.event_id

-- heads --
SELECT user_address, epoch, seq, first_seq FROM user_counters
WHERE user_address = ANY ($1::text[]) AND opened_at IS NOT NULL

-- after --
-- The byte bound lets at least one entry through, so that a reader always moves on.
SELECT seq, event, payload FROM (
    SELECT seq, event, payload, sum(octet_length(payload)) OVER (ORDER BY seq) - octet_length(payload) AS before
    FROM user_log WHERE user_address = $1 AND seq > $2 ORDER BY seq LIMIT $3
) AS page
WHERE before < $4
ORDER BY seq

-- of_cause --
-- What a block told, newest first: a reorg takes it back in that order.
SELECT user_address, seq, event_id, event, payload, transaction_id
FROM user_log WHERE chain_id = $1 AND cause = $2
ORDER BY user_address, seq DESC

-- prune --
-- One batch of one user's oldest entries; first_seq moves with it.
WITH old AS (
    SELECT user_address, seq FROM user_log WHERE ts < $1 ORDER BY ts LIMIT $2
), gone AS (
    DELETE FROM user_log AS l USING old
    WHERE l.user_address = old.user_address AND l.seq = old.seq
    RETURNING l.user_address, l.seq
), moved AS (
    UPDATE user_counters AS c SET first_seq = greatest(c.first_seq, g.last + 1)
    FROM (SELECT user_address, max(seq) AS last FROM gone GROUP BY user_address) AS g
    WHERE c.user_address = g.user_address
    RETURNING 1
)
SELECT count(*) FROM gone
