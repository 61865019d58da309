-- cursor --
SELECT chain_id, number, hash, block_time, head, finalized FROM chain_cursors WHERE chain_id = $1

-- cursors --
SELECT chain_id, number, hash, block_time, head, finalized FROM chain_cursors

-- start_cursor --
INSERT INTO chain_cursors (chain_id, number, hash, block_time, head, finalized) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (chain_id) DO NOTHING RETURNING true

-- move_cursor --
-- Compare-and-swap: a writer that lost its lock moves nothing.
UPDATE chain_cursors
SET number = $4, hash = $5, block_time = $6, head = greatest($7, $4::bigint), finalized = greatest(finalized, $8),
    updated_at = now()
WHERE chain_id = $1 AND number = $2 AND hash = $3
RETURNING true

-- rewind_cursor --
UPDATE chain_cursors
SET number = $4, hash = $5,
    block_time = coalesce((SELECT b.block_time FROM blocks AS b WHERE b.chain_id = $1 AND b.hash = $5::text),
                          chain_cursors.block_time),
    updated_at = now()
WHERE chain_id = $1 AND number = $2 AND hash = $3
RETURNING true

-- move_heights --
UPDATE chain_cursors SET head = $2, finalized = greatest(finalized, $3), updated_at = now()
WHERE chain_id = $1 AND (head <> $2 OR finalized < $3)

-- apply_block --
-- A block that comes back keeps its generation: how often it was reverted before.
INSERT INTO blocks (chain_id, hash, number, parent_hash, block_time, canonical, changed_xid)
VALUES ($1, $2, $3, $4, $5, true, pg_current_xact_id())
ON CONFLICT (chain_id, hash) DO UPDATE SET
    canonical = true, revision = blocks.revision + 1, persisted_at = NULL, changed_at = now(),
    changed_xid = excluded.changed_xid
RETURNING generation

-- count_rows --
-- A block without ledger rows has nothing to persist.
UPDATE blocks SET transactions = $3, persisted_at = CASE WHEN $3::int = 0 THEN now() END
WHERE chain_id = $1 AND hash = $2

-- revert_block --
UPDATE blocks SET canonical = false, generation = generation + 1, revision = revision + 1, changed_at = now(),
                  changed_xid = pg_current_xact_id(), persisted_at = CASE WHEN transactions = 0 THEN now() END
WHERE chain_id = $1 AND hash = $2 AND canonical
RETURNING number, parent_hash, block_time, generation, transactions

-- hash_at --
SELECT hash FROM blocks WHERE chain_id = $1 AND number = $2 AND canonical

-- quarantine --
INSERT INTO quarantined_logs (chain_id, block_hash, block_number, log_index, tx_hash, emitter, topics, data, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (chain_id, block_hash, log_index) DO NOTHING

-- lock_writer --
-- Held by the connection itself: it ends with it, however it ends.
SELECT pg_try_advisory_lock(hashtextextended('expendi.writer:' || $1::text, 0))
