-- request --
-- Asked again while the row waits or its job runs: created_at moves, so that the job which observed the old value
-- leaves the row in place. Strictly later, whatever the clock does.
INSERT INTO outbox (queue, job, args) VALUES ($1, $2, $3)
ON CONFLICT (job, args) DO UPDATE SET
    created_at = greatest(clock_timestamp(), outbox.created_at + interval '1 microsecond'), enqueued_at = NULL

-- request_each --
-- In one order for all writers, so that none waits for another in a circle.
INSERT INTO outbox (queue, job, args)
SELECT queue, job, args::jsonb FROM unnest($1::text[], $2::text[], $3::text[]) AS r (queue, job, args) ORDER BY job, args
ON CONFLICT (job, args) DO UPDATE SET
    created_at = greatest(clock_timestamp(), outbox.created_at + interval '1 microsecond'), enqueued_at = NULL

-- due --
SELECT id, job FROM outbox
WHERE queue = $1 AND (enqueued_at IS NULL OR enqueued_at < now() - make_interval(secs => $2))
ORDER BY enqueued_at NULLS FIRST, created_at
LIMIT $3

-- sent --
UPDATE outbox SET enqueued_at = now() WHERE id = ANY ($1::uuid[])

-- begin --
-- Attempts are counted when they begin: a job that takes its whole process down is counted too.
UPDATE outbox SET attempts = attempts + 1 WHERE id = $1
RETURNING id, job, args, attempts, created_at

-- forgive --
UPDATE outbox SET attempts = greatest(attempts - 1, 0) WHERE id = $1

-- done --
DELETE FROM outbox WHERE id = $1 AND created_at = $2 RETURNING true

-- depth --
SELECT count(*) FROM outbox
