-- take --
-- One persister per chain: held by the connection, which gives it back when it returns to the pool, or ends.
SELECT pg_try_advisory_lock(hashtextextended('expendi.persister:' || $1::bigint, 0))

-- plan --
-- The batch in hand, else the next: changes of whole transactions, about $2 of them, all ended. Kept before it is used, so
-- that whoever has to try again takes exactly the same. `persist_batches.chain_id` is set only to have the row returned.
INSERT INTO persist_batches (chain_id, xid)
SELECT $1, xid FROM (
    SELECT xid, change FROM ledger_changes
    WHERE chain_id = $1 AND xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY xid, change LIMIT $2
) AS next ORDER BY xid DESC, change DESC LIMIT 1
ON CONFLICT (chain_id) DO UPDATE SET chain_id = excluded.chain_id
RETURNING xid::text, (SELECT generation FROM analytics_generation) AS generation,
          EXISTS (SELECT FROM analytics_refill) AS refilling

-- rows --
-- The batch's rows as they are now: with its changes, perhaps with later ones, which come again in a batch of theirs.
WITH changed AS (
    SELECT DISTINCT user_address, block_hash, tx_hash, n FROM ledger_changes
    WHERE chain_id = $1 AND xid <= $2::text::xid8
)
SELECT t.*, a.category_id
FROM changed AS c
JOIN transactions AS t ON t.user_address = c.user_address AND t.chain_id = $1 AND t.block_hash = c.block_hash
    AND t.tx_hash = c.tx_hash AND t.n = c.n
LEFT JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
ORDER BY t.user_address, t.block_number, t.block_hash, t.tx_hash, t.n

-- mark --
-- Only blocks whose last apply or revert is in the batch. Before `forget`, in the order in which a block's own
-- transaction takes these locks.
UPDATE blocks SET persisted_at = now()
WHERE chain_id = $1 AND persisted_at IS NULL AND coalesce(changed_xid <= $2::text::xid8, true)
    AND hash IN (SELECT block_hash FROM ledger_changes WHERE chain_id = $1 AND xid <= $2::text::xid8)

-- forget --
-- The batch has arrived: its changes go, its users' version grows, and requests for its blocks end, but for those that
-- were made after the batch was planned, which may mean more than it holds.
WITH gone AS (
    DELETE FROM ledger_changes WHERE chain_id = $1 AND xid <= $2::text::xid8
    RETURNING user_address, block_number, block_hash
), planned AS (
    DELETE FROM persist_batches WHERE chain_id = $1 AND xid = $2::text::xid8
    RETURNING planned_at
), told AS (
    INSERT INTO persisted_users AS p (user_address)
    SELECT DISTINCT user_address FROM gone ORDER BY user_address
    ON CONFLICT (user_address) DO UPDATE SET version = p.version + 1, persisted_at = now()
)
DELETE FROM outbox USING planned
WHERE job = 'persist_block' AND created_at <= planned_at AND args IN (
    SELECT DISTINCT jsonb_build_object('chainId', $1::bigint, 'number', block_number, 'hash', block_hash) FROM gone
)
RETURNING id

-- adopt --
-- Changes of a former life of the cluster, restored into one whose transactions are numbered from the start again: they
-- have ended, though their numbers seem to lie ahead. In groups under numbers that were over before any database began.
WITH RECURSIVE chains AS (
    SELECT min(chain_id) AS chain_id FROM ledger_changes
    UNION ALL
    SELECT (SELECT min(chain_id) FROM ledger_changes WHERE chain_id > c.chain_id) FROM chains AS c
    WHERE c.chain_id IS NOT NULL
), stale AS (
    DELETE FROM persist_batches WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
)
UPDATE ledger_changes AS l SET xid = (3 + (l.change / 5000) % 500)::text::xid8 FROM chains AS c
WHERE l.chain_id = c.chain_id AND l.xid >= pg_snapshot_xmax(pg_current_snapshot())

-- waiting --
-- ripe: something that a persister can take now; of_block: something of this block waits, perhaps for others to end.
SELECT EXISTS (
           SELECT FROM ledger_changes WHERE chain_id = $1 AND xid < pg_snapshot_xmin(pg_current_snapshot())
       ) AS ripe,
       EXISTS (SELECT FROM ledger_changes WHERE chain_id = $1 AND block_hash = $2) AS of_block

-- persisted --
-- A user's version, and how far each chain's rows of the user are there: all of one instant.
SELECT coalesce((SELECT version FROM persisted_users WHERE user_address = $1), 0) + g.generation AS version,
       c.chain_id,
       least(c.number, (
           SELECT min(block_number) - 1 FROM ledger_changes WHERE user_address = $1 AND chain_id = c.chain_id
       )) AS as_of
FROM analytics_generation AS g LEFT JOIN chain_cursors AS c ON true

-- ask --
-- The oldest change of each chain, when it has waited too long. A request that is there already is handed out again.
WITH RECURSIVE chains AS (
    SELECT min(chain_id) AS chain_id FROM ledger_changes
    UNION ALL
    SELECT (SELECT min(chain_id) FROM ledger_changes WHERE chain_id > c.chain_id) FROM chains AS c
    WHERE c.chain_id IS NOT NULL
)
INSERT INTO outbox (queue, job, args)
SELECT 'quick', 'persist_block',
       jsonb_build_object('chainId', o.chain_id, 'number', o.block_number, 'hash', o.block_hash)
FROM chains AS c CROSS JOIN LATERAL (
    SELECT chain_id, block_number, block_hash, changed_at FROM ledger_changes
    WHERE chain_id = c.chain_id ORDER BY xid, change LIMIT 1
) AS o
WHERE o.changed_at < now() - make_interval(secs => $1)
ON CONFLICT (job, args) DO UPDATE SET enqueued_at = NULL
    WHERE outbox.enqueued_at < now() - make_interval(secs => $1)
RETURNING true

-- lag --
WITH RECURSIVE chains AS (
    SELECT min(chain_id) AS chain_id FROM ledger_changes
    UNION ALL
    SELECT (SELECT min(chain_id) FROM ledger_changes WHERE chain_id > c.chain_id) FROM chains AS c
    WHERE c.chain_id IS NOT NULL
)
SELECT greatest(coalesce(extract(epoch FROM now() - min(o.changed_at)), 0), 0)::float8
FROM chains AS c CROSS JOIN LATERAL (
    SELECT changed_at FROM ledger_changes WHERE chain_id = c.chain_id ORDER BY xid, change LIMIT 1
) AS o

-- prune_preimages --
-- A block this far below the finalized height is never reverted. One batch of one chain.
DELETE FROM preimages WHERE ctid IN (
    SELECT p.ctid FROM preimages AS p JOIN chain_cursors AS c ON c.chain_id = p.chain_id
    WHERE p.block_number < c.finalized - $1::bigint LIMIT $2
)
RETURNING true
