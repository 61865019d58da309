-- The spine: users and their logs, chains and their ledger, sessions, audit, jobs.
-- Amounts are NUMERIC(78,0) base units (a uint256 fits); decimals live beside them. Addresses are lower-case.

-- There and back through hex instead of a pattern: the same check at a fraction of the cost, on every ledger row.
CREATE DOMAIN address AS text CHECK (
    length(VALUE) = 42 AND '0x' || encode(decode(substr(VALUE, 3), 'hex'), 'hex') = VALUE
);
CREATE DOMAIN hash32 AS text CHECK (
    length(VALUE) = 66 AND '0x' || encode(decode(substr(VALUE, 3), 'hex'), 'hex') = VALUE
);
CREATE DOMAIN amount AS numeric(78, 0);

-- People -----------------------------------------------------------------------------------------------------------

-- Registered: signed in, or named as `user` by an accepted event.
CREATE TABLE users (
    address      address PRIMARY KEY,
    display_name text,
    avatar_url   text,
    time_zone    text NOT NULL DEFAULT 'UTC',
    locale       text NOT NULL DEFAULT 'en',
    risk_profile text NOT NULL DEFAULT 'moderate',
    ai_consent   boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

-- One row per user; its lock orders everything that appends to that user's log. The log exists from the first sign-in
-- (opened_at); epoch changes only when seq would go back (restore, erase).
CREATE TABLE user_counters (
    user_address address PRIMARY KEY,
    epoch        text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    seq          bigint NOT NULL DEFAULT 0,
    first_seq    bigint NOT NULL DEFAULT 1,
    opened_at    timestamptz
) WITH (fillfactor = 70);

-- The per-user log: what a client is told, in order, exactly once. `payload` is the finished JSON text of the socket.
CREATE TABLE user_log (
    user_address   address NOT NULL,
    seq            bigint NOT NULL,
    event_id       text NOT NULL,
    event          text NOT NULL,
    payload        text NOT NULL,
    ts             timestamptz NOT NULL,
    -- the block that caused the entry (hash:generation), so that a reorg finds what it has to take back
    chain_id       bigint,
    cause          text,
    transaction_id text,
    PRIMARY KEY (user_address, seq),
    UNIQUE (user_address, event_id)
) PARTITION BY HASH (user_address);
CREATE TABLE user_log_0 PARTITION OF user_log FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE user_log_1 PARTITION OF user_log FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE user_log_2 PARTITION OF user_log FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE user_log_3 PARTITION OF user_log FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE user_log_4 PARTITION OF user_log FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE user_log_5 PARTITION OF user_log FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE user_log_6 PARTITION OF user_log FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE user_log_7 PARTITION OF user_log FOR VALUES WITH (MODULUS 8, REMAINDER 7);
CREATE INDEX user_log_cause ON user_log (chain_id, cause) WHERE cause IS NOT NULL;
CREATE INDEX user_log_ts ON user_log USING brin (ts);

-- Chains -----------------------------------------------------------------------------------------------------------

-- Where each chain's ledger stands. Moved by compare-and-swap on (number, hash), so a writer that lost its lock can't write.
CREATE TABLE chain_cursors (
    chain_id   bigint PRIMARY KEY,
    number     bigint NOT NULL,
    hash       text NOT NULL,
    block_time timestamptz NOT NULL,
    head       bigint NOT NULL DEFAULT 0,
    finalized  bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- generation: how often this block was reverted before; part of event ids, since a block can come back.
-- revision: changes with every apply and revert, so that a slow persister can't claim what it did not read.
CREATE TABLE blocks (
    chain_id     bigint NOT NULL,
    hash         hash32 NOT NULL,
    number       bigint NOT NULL,
    parent_hash  hash32 NOT NULL,
    block_time   timestamptz NOT NULL,
    canonical    boolean NOT NULL,
    generation   integer NOT NULL DEFAULT 0,
    revision     integer NOT NULL DEFAULT 1,
    transactions integer NOT NULL DEFAULT 0,
    persisted_at timestamptz,
    changed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain_id, hash)
);
CREATE UNIQUE INDEX blocks_canonical ON blocks (chain_id, number) WHERE canonical;
CREATE INDEX blocks_unpersisted ON blocks (changed_at) WHERE persisted_at IS NULL;

-- Contracts whose events count. A wallet counts from the log that creates it on; owner is null for one that serves many.
CREATE TABLE wallets (
    chain_id      bigint NOT NULL,
    address       address NOT NULL,
    user_address  address,
    created_block bigint NOT NULL,
    PRIMARY KEY (chain_id, address)
);

CREATE TABLE buckets (
    chain_id      bigint NOT NULL,
    wallet        address NOT NULL,
    user_address  address NOT NULL,
    bucket_id     text NOT NULL,
    name          text NOT NULL,
    raw_name      bytea NOT NULL,
    active        boolean NOT NULL,
    monthly_limit amount NOT NULL,
    spent         amount NOT NULL,
    period_start  timestamptz,
    delegates     text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (bucket_id)
) WITH (fillfactor = 80);
CREATE INDEX buckets_user ON buckets (user_address, chain_id, wallet);
CREATE INDEX buckets_period ON buckets (chain_id, period_start) WHERE spent > 0 AND period_start IS NOT NULL;
CREATE INDEX buckets_delegates ON buckets USING gin (delegates);

-- scope unallocated and bucket: money inside a wallet contract; scope wallet: listed ERC-20 of the user's own address
-- (wallet and bucket_id are '' there).
CREATE TABLE balances (
    user_address address NOT NULL,
    chain_id     bigint NOT NULL,
    scope        text NOT NULL CHECK (scope IN ('unallocated', 'bucket', 'wallet')),
    wallet       text NOT NULL,
    bucket_id    text NOT NULL,
    token        address NOT NULL,
    amount       amount NOT NULL,
    PRIMARY KEY (user_address, chain_id, scope, wallet, bucket_id, token)
) WITH (fillfactor = 80);

-- Users whose wallet-scope balance is followed on a chain; opened_block is null until the writer has read balanceOf.
CREATE TABLE wallet_scopes (
    chain_id     bigint NOT NULL,
    user_address address NOT NULL,
    opened_block bigint,
    PRIMARY KEY (chain_id, user_address)
);
CREATE INDEX wallet_scopes_pending ON wallet_scopes (chain_id, user_address) WHERE opened_block IS NULL;

CREATE SEQUENCE ledger_version;

-- The ledger. (user, chain, block, tx, n) is the cause; `canonical` tells which one counts. version grows with each change.
CREATE TABLE transactions (
    user_address address NOT NULL,
    chain_id     bigint NOT NULL,
    block_hash   hash32 NOT NULL,
    tx_hash      hash32 NOT NULL,
    n            integer NOT NULL,
    id           text NOT NULL,
    event_id     text NOT NULL,
    role         text NOT NULL CHECK (role IN ('owner', 'delegate')),
    canonical    boolean NOT NULL DEFAULT true,
    log_index    integer NOT NULL,
    block_number bigint NOT NULL,
    block_time   timestamptz NOT NULL,
    type         text NOT NULL,
    account_type text NOT NULL CHECK (account_type IN ('spending', 'investment', 'savings')),
    direction    text NOT NULL CHECK (direction IN ('in', 'out', 'internal')),
    token        address NOT NULL,
    symbol       text,
    decimals     smallint,
    amount       amount NOT NULL,
    usd          numeric,
    wallet       text,
    bucket_id    text,
    bucket       text,
    to_bucket_id text,
    to_bucket    text,
    counterparty text,
    spender      text,
    fee_wei      amount,
    version      bigint NOT NULL DEFAULT nextval('ledger_version'),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_address, chain_id, block_hash, tx_hash, n)
);
CREATE UNIQUE INDEX transactions_canonical ON transactions (user_address, id) WHERE canonical;
CREATE INDEX transactions_history ON transactions (user_address, block_time DESC, id DESC) WHERE canonical;
CREATE INDEX transactions_block ON transactions (chain_id, block_hash);

-- State of chain-owned rows before a block changed them; `was` is null where the row did not exist. Restored newest first.
CREATE TABLE preimages (
    chain_id     bigint NOT NULL,
    block_number bigint NOT NULL,
    block_hash   text NOT NULL,
    relation     text NOT NULL CHECK (relation IN ('buckets', 'balances', 'wallets', 'wallet_scopes')),
    key          text NOT NULL,
    was          jsonb,
    PRIMARY KEY (chain_id, block_hash, relation, key)
);
CREATE INDEX preimages_number ON preimages (chain_id, block_number);

-- Logs that could not be decoded or applied, with the reason: counted, never skipped in silence.
CREATE TABLE quarantined_logs (
    chain_id     bigint NOT NULL,
    block_hash   hash32 NOT NULL,
    log_index    integer NOT NULL,
    block_number bigint NOT NULL,
    tx_hash      hash32 NOT NULL,
    emitter      text NOT NULL,
    topics       text[] NOT NULL,
    data         text NOT NULL,
    reason       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain_id, block_hash, log_index)
);

-- How far a rebuild of a chain's past has come, so that one that was stopped goes on where it was.
CREATE TABLE backfills (
    chain_id   bigint PRIMARY KEY,
    first      bigint NOT NULL,
    next       bigint NOT NULL,
    state      jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Jobs -------------------------------------------------------------------------------------------------------------

-- Jobs requested by the transaction that needs them. The job deletes its row; the sweep enqueues again what stays.
CREATE TABLE outbox (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    queue       text NOT NULL CHECK (queue IN ('quick', 'slow')),
    job         text NOT NULL,
    args        jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    enqueued_at timestamptz,
    attempts    integer NOT NULL DEFAULT 0,
    UNIQUE (job, args)
);
CREATE INDEX outbox_due ON outbox (enqueued_at NULLS FIRST);

-- Sign-in ----------------------------------------------------------------------------------------------------------

CREATE TABLE auth_nonces (
    nonce      text PRIMARY KEY,
    expires_at timestamptz NOT NULL
);

CREATE TABLE sessions (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_address   address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    user_agent     text NOT NULL DEFAULT '',
    ip_address     inet,
    created_at     timestamptz NOT NULL DEFAULT now(),
    last_used_at   timestamptz NOT NULL DEFAULT now(),
    revoked_at     timestamptz,
    revoked_reason text
);
CREATE INDEX sessions_user ON sessions (user_address) WHERE revoked_at IS NULL;
CREATE INDEX sessions_revoked ON sessions (revoked_at) WHERE revoked_at IS NOT NULL;

-- Tokens are opaque 256-bit values; only their SHA-256 is kept.
CREATE TABLE access_tokens (
    token_hash bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    expires_at timestamptz NOT NULL
);
CREATE INDEX access_tokens_session ON access_tokens (session_id);
CREATE INDEX access_tokens_expiry ON access_tokens (expires_at);

CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

-- Append-only: a trigger refuses to change or delete what was written.
CREATE TABLE audit_logs (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id    address,
    action     text NOT NULL,
    metadata   jsonb NOT NULL DEFAULT '{}',
    ip_address inet,
    user_agent text NOT NULL DEFAULT '',
    timestamp  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_logs_user ON audit_logs (user_id, timestamp DESC);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_logs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
