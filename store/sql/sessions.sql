-- put_nonce --
INSERT INTO auth_nonces (nonce, expires_at) VALUES ($1, $2)

-- nonce_end --
SELECT expires_at FROM auth_nonces WHERE nonce = $1

-- take_nonce --
-- Atomic: of any number of sign-ins with one nonce, one gets the row.
DELETE FROM auth_nonces WHERE nonce = $1 RETURNING expires_at

-- register --
INSERT INTO users (address) VALUES ($1) ON CONFLICT (address) DO NOTHING

-- user --
SELECT address, display_name, avatar_url, time_zone, locale, risk_profile, ai_consent FROM users WHERE address = $1

-- open_log --
-- The log exists from the first sign-in on; the counter row is locked by then.
UPDATE user_counters SET opened_at = $2 WHERE user_address = $1 AND opened_at IS NULL

-- follow_wallet --
-- The chain's writer opens the balance when it next looks.
INSERT INTO wallet_scopes (chain_id, user_address) SELECT c, $2 FROM unnest($1::bigint[]) AS c
ON CONFLICT (chain_id, user_address) DO NOTHING

-- start_session --
INSERT INTO sessions (user_address, user_agent, ip_address, created_at, last_used_at) VALUES ($1, $2, $3, $4, $4)
RETURNING id

-- add_access --
INSERT INTO access_tokens (token_hash, session_id, expires_at) VALUES ($1, $2, $3)

-- add_refresh --
INSERT INTO refresh_tokens (token_hash, session_id, expires_at) VALUES ($1, $2, $3)

-- access --
SELECT a.session_id, s.user_address, a.expires_at
FROM access_tokens AS a JOIN sessions AS s ON s.id = a.session_id
WHERE a.token_hash = $1 AND s.revoked_at IS NULL

-- refresh_owner --
SELECT s.user_address FROM refresh_tokens AS r JOIN sessions AS s ON s.id = r.session_id WHERE r.token_hash = $1

-- lock_refresh --
-- Whoever comes second waits here and then sees that the token was used.
SELECT r.session_id, s.user_address, r.expires_at, r.used_at, s.revoked_at
FROM refresh_tokens AS r JOIN sessions AS s ON s.id = r.session_id
WHERE r.token_hash = $1
FOR UPDATE OF r

-- use_refresh --
UPDATE refresh_tokens SET used_at = $2 WHERE token_hash = $1

-- touch --
UPDATE sessions SET last_used_at = $2 WHERE id = $1

-- revoke --
-- The database's own clock: every web process asks for what was revoked since it last looked.
UPDATE sessions SET revoked_at = clock_timestamp(), revoked_reason = $3
WHERE user_address = $1 AND ($2::uuid IS NULL OR id = $2) AND revoked_at IS NULL
RETURNING id

-- revoked_since --
-- Ten seconds more than asked: clocks differ, and a revocation is seen only when its transaction commits.
SELECT id FROM sessions WHERE revoked_at >= $1::timestamptz - interval '10 seconds'

-- sessions_of --
-- Live ones: not revoked, and some refresh token of theirs still works.
SELECT id, user_agent, ip_address, created_at, last_used_at FROM sessions AS s
WHERE user_address = $1 AND revoked_at IS NULL AND EXISTS (
    SELECT FROM refresh_tokens AS r WHERE r.session_id = s.id AND r.used_at IS NULL AND r.expires_at > $2
)
ORDER BY last_used_at DESC, id

-- prune_nonces --
WITH old AS (SELECT nonce FROM auth_nonces WHERE expires_at < $1 LIMIT $2),
gone AS (DELETE FROM auth_nonces AS n USING old WHERE n.nonce = old.nonce RETURNING 1)
SELECT count(*) FROM gone

-- prune_access --
WITH old AS (SELECT token_hash FROM access_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2),
gone AS (DELETE FROM access_tokens AS t USING old WHERE t.token_hash = old.token_hash RETURNING 1)
SELECT count(*) FROM gone

-- prune_refresh --
WITH old AS (SELECT token_hash FROM refresh_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2),
gone AS (DELETE FROM refresh_tokens AS t USING old WHERE t.token_hash = old.token_hash RETURNING 1)
SELECT count(*) FROM gone

-- prune_sessions --
-- A session is over when none of its tokens is left; used refresh tokens stay till then, so that reuse is recognised.
WITH old AS (
    SELECT id FROM sessions AS s
    WHERE last_used_at < $1 AND NOT EXISTS (SELECT FROM refresh_tokens AS r WHERE r.session_id = s.id)
        AND NOT EXISTS (SELECT FROM access_tokens AS a WHERE a.session_id = s.id)
    LIMIT $2
),
gone AS (DELETE FROM sessions AS s USING old WHERE s.id = old.id RETURNING 1)
SELECT count(*) FROM gone
