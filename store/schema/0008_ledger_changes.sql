-- What of the ledger ClickHouse does not have yet. Before deploy. Rows that were never persisted are asked for here; run
-- `expendi analytics rebuild` once after the deploy, so that categories given before it arrive too.

-- One row per change of a ledger row, written by the statement that makes the change: recorded, reverted, canonical again,
-- another category. Persistence reads them by (xid, change), only of transactions below pg_snapshot_xmin: all of those
-- have ended, so nothing that it has not seen can appear below what it deletes. xid: the transaction that made the change.
-- Foreign keys and checks are left out: every row repeats one of `transactions`.
CREATE TABLE ledger_changes (
    change       bigint GENERATED ALWAYS AS IDENTITY,
    xid          xid8 NOT NULL DEFAULT pg_current_xact_id(),
    user_address text NOT NULL,
    chain_id     bigint NOT NULL,
    block_number bigint NOT NULL,
    block_hash   text NOT NULL,
    tx_hash      text NOT NULL,
    n            integer NOT NULL,
    changed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain_id, xid, change)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
CREATE INDEX ledger_changes_user ON ledger_changes (user_address, chain_id, block_number);

-- The batch a chain's persister has in hand: every change up to `xid`. Kept until ClickHouse has it, so that whoever
-- tries again takes exactly the same, under the same deduplication token.
CREATE TABLE persist_batches (
    chain_id   bigint PRIMARY KEY,
    xid        xid8 NOT NULL,
    planned_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Grows whenever anything of the user reaches ClickHouse: part of the key of every cached answer.
CREATE TABLE persisted_users (
    user_address text PRIMARY KEY,
    version      bigint NOT NULL DEFAULT 1,
    persisted_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);

-- One row: how often analytics were rebuilt, which is part of everyone's version.
CREATE TABLE analytics_generation (
    one_row    boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    generation bigint NOT NULL DEFAULT 0
);
INSERT INTO analytics_generation DEFAULT VALUES;

-- ClickHouse's tables are being filled anew beside the old ones: one refill at a time, which can be stopped and goes on.
-- While the row exists, every batch goes to both. Days (UTC) from next_day to before `until` are still to be copied, then
-- months from next_month on to be put in place; until and rows are null before the ledger was looked at.
CREATE TABLE analytics_refill (
    one_row    boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    chain_id   bigint,
    next_day   date,
    until      date,
    next_month date NOT NULL,
    copied     bigint NOT NULL DEFAULT 0,
    rows       bigint,
    started_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- When each month of a chain was last taken to compare both stores, and in how many groups of users it differed last.
CREATE TABLE reconciliations (
    chain_id bigint NOT NULL,
    month    date NOT NULL,
    tried_at timestamptz,
    differs  integer NOT NULL DEFAULT 0,
    PRIMARY KEY (chain_id, month)
);

-- The transaction that last applied or reverted the block: it is persisted when changes up to it are.
ALTER TABLE blocks ADD COLUMN changed_xid xid8;

-- The ledger by time, for rebuilding and comparing whole months: appended in this order, so a few pages index it.
CREATE INDEX transactions_time ON transactions USING brin (block_time) WITH (pages_per_range = 32);

-- In groups of a few thousand under made-up, ended transactions, so that no batch becomes too large.
INSERT INTO ledger_changes (xid, user_address, chain_id, block_number, block_hash, tx_hash, n)
SELECT (1 + (row_number() OVER (ORDER BY t.chain_id, t.block_number)) / 5000)::text::xid8,
       t.user_address, t.chain_id, t.block_number, t.block_hash, t.tx_hash, t.n
FROM transactions AS t JOIN blocks AS b ON b.chain_id = t.chain_id AND b.hash = t.block_hash
WHERE b.persisted_at IS NULL;
