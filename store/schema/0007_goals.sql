-- Savings goals. Before deploy: nothing reads it yet, and the new column of the ledger is nullable.

-- goal_id is 32 bytes, since the planned contract calls a goal by it. Amounts are dollars. A goal is kept by its link
-- (a bucket, a position, or the operations of an identifier), or by hand without one.
CREATE TABLE savings_goals (
    user_address    address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    goal_id         hash32 NOT NULL,
    goal_name       text NOT NULL CHECK (length(goal_name) BETWEEN 1 AND 100),
    target_amount   numeric(20, 2) NOT NULL CHECK (target_amount > 0),
    current_amount  numeric NOT NULL DEFAULT 0,
    -- amounts of the link that have no price and so are not in current_amount
    unpriced        integer NOT NULL DEFAULT 0,
    target_date     date,
    category_id     uuid REFERENCES categories (id),
    link_kind       text CHECK (link_kind IN ('bucket', 'lock', 'vault', 'v2')),
    chain_id        bigint,
    link_id         text,
    -- of a link that earns; null of others, and where it is not known
    yield_earned    numeric,
    apy             numeric,
    -- days in the user's zone: when it began, and as of which day its days were last told
    started_on      date NOT NULL,
    told_on         date NOT NULL,
    completed_at    timestamptz,
    -- where the link's chain stood then, so that a reorg finds what it takes back
    completed_block bigint,
    is_active       boolean NOT NULL DEFAULT true,
    -- how often it was told: part of the ids of what was told of it
    revision        integer NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_address, goal_id),
    CHECK ((link_kind IS NULL) = (chain_id IS NULL) AND (link_kind IS NULL) = (link_id IS NULL))
);
-- The same money is not saved twice.
CREATE UNIQUE INDEX savings_goals_link ON savings_goals (user_address, link_kind, chain_id, link_id) WHERE is_active;
CREATE INDEX savings_goals_day ON savings_goals (told_on)
    WHERE is_active AND (target_date IS NOT NULL OR link_kind IS NOT NULL);

-- Milestones that count as reached, once each: money spent later leaves them, what a reorg takes back deletes them.
CREATE TABLE goal_milestones (
    user_address address NOT NULL,
    goal_id      hash32 NOT NULL,
    milestone    smallint NOT NULL CHECK (milestone IN (25, 50, 75, 100)),
    -- goal_milestone that told it, and whether a notification told of that
    event_id     text NOT NULL,
    notified     boolean NOT NULL,
    -- dollars that had to be there
    amount       numeric NOT NULL,
    -- where the link's chain stood; null for a goal kept by hand
    chain_id     bigint,
    block_number bigint,
    reached_at   timestamptz NOT NULL,
    PRIMARY KEY (user_address, goal_id, milestone),
    FOREIGN KEY (user_address, goal_id) REFERENCES savings_goals ON DELETE CASCADE
);

-- What an operation of the planned contract is about: a bucket, a position or a goal.
ALTER TABLE transactions ADD COLUMN IF NOT EXISTS identifier text;
CREATE INDEX IF NOT EXISTS transactions_identifier ON transactions (user_address, chain_id, identifier)
    WHERE canonical AND identifier IS NOT NULL;
