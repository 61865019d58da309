-- checkpoint --
SELECT first, next, state FROM backfills WHERE chain_id = $1

-- save_checkpoint --
INSERT INTO backfills (chain_id, first, next, state) VALUES ($1, $2, $3, $4)
ON CONFLICT (chain_id) DO UPDATE SET first = excluded.first, next = excluded.next, state = excluded.state,
                                     updated_at = now()

-- forget_checkpoint --
DELETE FROM backfills WHERE chain_id = $1

-- lock_cursor --
-- Holds the chain's writer where it is: its next block waits until the rebuild has committed.
SELECT chain_id, number, hash, block_time, head, finalized FROM chain_cursors WHERE chain_id = $1 FOR UPDATE

-- add_block --
-- Past blocks that were never kept, because nothing in them was ours then.
INSERT INTO blocks (chain_id, hash, number, parent_hash, block_time, canonical, changed_xid)
VALUES ($1, $2, $3, $4, $5, true, pg_current_xact_id())
ON CONFLICT (chain_id, hash) DO UPDATE SET
    revision = blocks.revision + 1, persisted_at = NULL, changed_at = now(), changed_xid = excluded.changed_xid

-- recount --
UPDATE blocks AS b SET transactions = (
    SELECT count(*) FROM transactions AS t WHERE t.chain_id = b.chain_id AND t.block_hash = b.hash AND t.canonical
)
WHERE b.chain_id = $1 AND b.hash = $2

-- missing_rows --
-- Which of these ledger rows are not there yet.
SELECT w.user_address, w.tx_hash, w.n FROM unnest($3::text[], $4::text[], $5::int[]) AS w (user_address, tx_hash, n)
WHERE NOT EXISTS (
    SELECT FROM transactions AS t WHERE t.user_address = w.user_address AND t.chain_id = $1 AND t.block_hash = $2
        AND t.tx_hash = w.tx_hash AND t.n = w.n
)

-- owners --
-- Everyone who holds something in a wallet contract of the chain.
SELECT DISTINCT user_address FROM buckets WHERE chain_id = $1
UNION SELECT DISTINCT user_address FROM balances WHERE chain_id = $1 AND scope <> 'wallet'

-- delegates --
-- Everyone who may spend from a bucket of someone else.
SELECT DISTINCT unnest(delegates) AS address FROM buckets WHERE chain_id = $1 AND delegates <> '{}'

-- drop_buckets --
DELETE FROM buckets WHERE chain_id = $1 AND user_address = ANY ($2::text[])

-- drop_balances --
DELETE FROM balances WHERE chain_id = $1 AND user_address = ANY ($2::text[]) AND scope <> 'wallet'

-- drop_preimages --
-- Pre-images of these users' rows, from a block on: they are made again from the rebuilt state.
DELETE FROM preimages
WHERE chain_id = $1 AND block_number >= $2
    AND ((relation = 'balances' AND split_part(key, '|', 1) = ANY ($3::text[]) AND split_part(key, '|', 2) <> 'wallet')
         OR (relation = 'buckets' AND split_part(key, ':', 3) = ANY ($3::text[])))
