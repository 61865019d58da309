-- Accounts of users, and what they have invested: positions, the prices of their shares, and how they changed. Before
-- deploy: additive; nothing reads it yet.

-- One account per user, chain and type, so the key alone keeps a second one out, named or not (UNIQUE over a name would
-- have to say NULLS NOT DISTINCT). opened_block null: its first cause was taken back by a reorg, and there is no account
-- until the cause comes again; name and activity are the user's own and stay.
CREATE TABLE user_accounts (
    user_address address NOT NULL,
    chain_id     bigint NOT NULL,
    account_type text NOT NULL CHECK (account_type IN ('spending', 'investment', 'savings')),
    account_name text,
    is_active    boolean NOT NULL DEFAULT true,
    opened_block bigint,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_address, chain_id, account_type)
);

-- Accounts of everyone the ledger knows already: a block of theirs made each of them.
INSERT INTO user_accounts (user_address, chain_id, account_type, opened_block)
SELECT user_address, chain_id, account_type, min(block_number) FROM transactions WHERE canonical
GROUP BY user_address, chain_id, account_type
ON CONFLICT DO NOTHING;

-- A position as it was told last: between two tellings its value moves on the chain and not here. Amounts are base units
-- of the asset; principal null: not known until a first price is read. kind vault: shares of an ERC-4626 vault; lock: a
-- yield time lock; account: what a V2 investment account holds under one identifier.
CREATE TABLE investment_positions (
    user_address    address NOT NULL,
    chain_id        bigint NOT NULL,
    position_id     text NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('vault', 'lock', 'account')),
    contract        address NOT NULL,
    lock_id         amount,
    vault           address,
    protocol_name   text NOT NULL,
    asset_address   address NOT NULL,
    asset_symbol    text,
    shares          amount NOT NULL,
    principal       amount,
    realized        amount NOT NULL,
    fees            amount NOT NULL,
    entry_price     numeric,
    current_value   amount,
    yield_earned    amount,
    value_usd       numeric,
    yield_usd       numeric,
    apy             numeric,
    apy_window_s    bigint,
    as_of_block     bigint NOT NULL,
    last_updated_at timestamptz NOT NULL,
    opened_block    bigint NOT NULL,
    opened_at       timestamptz NOT NULL,
    unlock_at       timestamptz,
    label           text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_address, position_id)
) WITH (fillfactor = 80);
CREATE INDEX investment_positions_open ON investment_positions (chain_id) WHERE shares > 0;

-- What so many shares are worth in assets, per vault and block (source: the vault, or one lock's position id). One an
-- hour and each at which somebody's position changed: what APY and past values are computed from.
CREATE TABLE share_prices (
    chain_id     bigint NOT NULL,
    source       text NOT NULL,
    block_number bigint NOT NULL,
    block_hash   hash32 NOT NULL,
    block_time   timestamptz NOT NULL,
    assets       amount NOT NULL,
    shares       amount NOT NULL,
    PRIMARY KEY (chain_id, source, block_number)
);
CREATE INDEX share_prices_time ON share_prices (chain_id, source, block_time);
CREATE INDEX share_prices_block ON share_prices (chain_id, block_hash);

-- How a position stood after each block that changed it: what its value at a past time is computed from.
CREATE TABLE position_points (
    user_address address NOT NULL,
    position_id  text NOT NULL,
    chain_id     bigint NOT NULL,
    block_number bigint NOT NULL,
    block_hash   hash32 NOT NULL,
    block_time   timestamptz NOT NULL,
    shares       amount NOT NULL,
    principal    amount,
    realized     amount NOT NULL,
    PRIMARY KEY (user_address, position_id, block_number)
);
CREATE INDEX position_points_block ON position_points (chain_id, block_hash);

-- Vaults that a chain's ledger follows. When one is new in the chain table, the own addresses of everyone known already
-- are opened again, which reads their shares of it.
CREATE TABLE followed_vaults (
    chain_id bigint NOT NULL,
    vault    address NOT NULL,
    since    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain_id, vault)
);

-- identifier: the position that a vault's or lock's row is about, or the bytes32 of a V2 operation as hex. account_fee:
-- what the contract kept of the operation, in base units of account_fee_token; the network's fee is another thing.
ALTER TABLE transactions
    ADD COLUMN identifier        text,
    ADD COLUMN account_fee       amount,
    ADD COLUMN account_fee_token text;

ALTER TABLE preimages DROP CONSTRAINT preimages_relation_check;
ALTER TABLE preimages ADD CONSTRAINT preimages_relation_check CHECK (
    relation IN ('buckets', 'balances', 'wallets', 'wallet_scopes', 'positions', 'accounts', 'goals', 'goal_milestones')
) NOT VALID;
