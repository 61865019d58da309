-- Prices of tokens as their feeds said at blocks, and what the ledger keeps of fees. Before deploy: new columns are
-- nullable, nothing reads them yet.

-- A row where an answer differs from the one before it: at any block the newest row at or below it holds. usd null: the
-- feed failed or was stale there. Rows of blocks that a reorg takes back are deleted.
CREATE TABLE prices (
    chain_id        bigint NOT NULL,
    token           address NOT NULL,
    block_number    bigint NOT NULL,
    block_hash      hash32 NOT NULL,
    usd             numeric CHECK (usd > 0),
    feed_updated_at timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain_id, token, block_number)
);
CREATE INDEX prices_block ON prices (chain_id, block_hash);

-- The fee's value at its block, and its parts: fee_wei = gas_used * gas_price + what the chain charges for its L1 data.
ALTER TABLE transactions
    ADD COLUMN fee_usd   numeric,
    ADD COLUMN gas_used  bigint,
    ADD COLUMN gas_price amount;
