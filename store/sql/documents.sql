-- ask --
-- No row when the same is under way.
INSERT INTO exports (user_address, kind, format, params, query, fingerprint, file_name, media, object,
                     created_at, updated_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11)
ON CONFLICT (user_address, fingerprint) WHERE status IN ('queued', 'running') DO NOTHING
RETURNING *

-- under_way --
SELECT * FROM exports WHERE user_address = $1 AND fingerprint = $2 AND status IN ('queued', 'running')

-- count_under_way --
SELECT count(*) FROM exports WHERE user_address = $1 AND status IN ('queued', 'running')

-- one --
SELECT * FROM exports WHERE user_address = $1 AND id = $2 AND status <> 'cancelled'

-- any_one --
SELECT * FROM exports WHERE id = $1

-- page --
SELECT * FROM exports
WHERE user_address = $1 AND status <> 'cancelled' AND (created_at, id) < ($2::timestamptz, $3::uuid)
ORDER BY created_at DESC, id DESC LIMIT $4

-- cancel --
-- The sweep finds it at once, as one whose time is over.
UPDATE exports SET status = 'cancelled', updated_at = $3, expires_at = $3
WHERE user_address = $1 AND id = $2 AND status <> 'cancelled' RETURNING *

-- take --
-- One run at a time; one that died leaves it to its lease.
UPDATE exports SET run = $2, run_until = $4, status = 'running', updated_at = $3
WHERE id = $1 AND status IN ('queued', 'running') AND (run IS NULL OR run_until <= $3) RETURNING *

-- leave --
UPDATE exports SET run = NULL, run_until = NULL WHERE id = $1 AND run = $2

-- start --
UPDATE exports SET upload = $3, parts = '{}', place = NULL, rows = 0, bytes = 0, total_rows = $4, updated_at = $5
WHERE id = $1 AND run = $2 AND status = 'running' RETURNING *

-- keep_part --
UPDATE exports SET parts = parts || $4::text, place = $5, rows = rows + $6, bytes = bytes + $7, updated_at = $8
WHERE id = $1 AND run = $2 AND status = 'running' AND cardinality(parts) = $3::int - 1 RETURNING true

-- finish --
UPDATE exports SET status = 'done', finished_at = $3, updated_at = $3, expires_at = $4, place = NULL, run = NULL
WHERE id = $1 AND run = $2 AND status = 'running' RETURNING true

-- fail --
UPDATE exports SET status = 'failed', reason = $2, finished_at = $3, updated_at = $3
WHERE id = $1 AND status IN ('queued', 'running')

-- expired --
SELECT * FROM exports WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2

-- forget --
DELETE FROM exports WHERE id = $1
