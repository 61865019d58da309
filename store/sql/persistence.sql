-- block --
SELECT revision FROM blocks WHERE chain_id = $1 AND hash = $2

-- rows --
-- Canonical and reverted ones: what was taken back leaves a tombstone.
SELECT user_address, chain_id, block_hash, tx_hash, n, event_id, role, canonical, log_index, block_number, block_time,
       type, account_type, direction, token, symbol, decimals, amount, usd, wallet, bucket_id, bucket, to_bucket_id,
       to_bucket, counterparty, spender, fee_wei, fee_usd, gas_used, gas_price, version
FROM transactions WHERE chain_id = $1 AND block_hash = $2
ORDER BY user_address, tx_hash, n

-- mark --
-- Only what was read: a block applied or reverted meanwhile has another revision.
UPDATE blocks SET persisted_at = now() WHERE chain_id = $1 AND hash = $2 AND revision = $3 RETURNING true

-- ask --
-- A row that is there already is on its way.
INSERT INTO outbox (queue, job, args)
SELECT 'quick', 'persist_block', jsonb_build_object('chainId', chain_id, 'number', number, 'hash', hash)
FROM blocks WHERE persisted_at IS NULL AND changed_at < now() - make_interval(secs => $1)
ORDER BY changed_at LIMIT $2
ON CONFLICT (job, args) DO NOTHING
RETURNING true

-- lag --
SELECT coalesce(extract(epoch FROM now() - min(changed_at)), 0)::float8 FROM blocks WHERE persisted_at IS NULL

-- prune_preimages --
-- A block this far below the finalized height is never reverted. One batch of one chain.
DELETE FROM preimages WHERE ctid IN (
    SELECT p.ctid FROM preimages AS p JOIN chain_cursors AS c ON c.chain_id = p.chain_id
    WHERE p.block_number < c.finalized - $1::bigint LIMIT $2
)
RETURNING true
