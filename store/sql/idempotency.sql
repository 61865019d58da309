-- claim --
-- Taken over: a key older than a day, and one whose call died, by the same call. Of many that come at once one gets it.
INSERT INTO idempotency_keys AS k (user_address, key, fingerprint, claim) VALUES ($1, $2, $3, $4)
ON CONFLICT (user_address, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, claim = excluded.claim, claimed_at = now(),
    status = NULL, body = DEFAULT, headers = DEFAULT
WHERE k.claimed_at < now() - make_interval(secs => $5)
   OR (k.status IS NULL AND k.fingerprint = excluded.fingerprint AND k.claimed_at < now() - make_interval(secs => $6))
RETURNING true

-- kept --
SELECT fingerprint, status, body, headers FROM idempotency_keys WHERE user_address = $1 AND key = $2

-- keep --
UPDATE idempotency_keys SET status = $4, body = $5, headers = $6
WHERE user_address = $1 AND key = $2 AND claim = $3

-- release --
DELETE FROM idempotency_keys WHERE user_address = $1 AND key = $2 AND claim = $3 AND status IS NULL

-- prune --
WITH old AS (
    SELECT user_address, key FROM idempotency_keys
    WHERE claimed_at < now() - make_interval(secs => $1) ORDER BY claimed_at LIMIT $2
), gone AS (
    DELETE FROM idempotency_keys AS k USING old
    WHERE k.user_address = old.user_address AND k.key = old.key AND k.claimed_at < now() - make_interval(secs => $1)
    RETURNING 1
)
SELECT count(*) FROM gone
