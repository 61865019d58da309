-- Categories, budgets, alerts, notifications and push. Before deploy: nothing here changes what the spine reads.

-- People -----------------------------------------------------------------------------------------------------------

ALTER TABLE users
    -- dollars a month over all categories; null: the sum of the category budgets counts
    ADD COLUMN monthly_budget   numeric(20, 2) CHECK (monthly_budget >= 0),
    -- first day of the month (in the user's zone) that was last told by budget_update
    ADD COLUMN budget_month     date,
    -- percent of a budget at which the user is alerted, ascending
    ADD COLUMN alert_thresholds smallint[] NOT NULL DEFAULT '{50,80,100}',
    -- quiet hours in the user's zone; null: none. start > end spans midnight
    ADD COLUMN quiet_start      time,
    ADD COLUMN quiet_end        time,
    ADD COLUMN hide_amounts     boolean NOT NULL DEFAULT false,
    ADD COLUMN digest           text NOT NULL DEFAULT 'weekly' CHECK (digest IN ('off', 'daily', 'weekly')),
    -- sealed (store/sealed.py)
    ADD COLUMN email            bytea,
    -- bumped with every change: the ETag of /v1/me
    ADD COLUMN revision         bigint NOT NULL DEFAULT 1;

CREATE TABLE contacts (
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    address      address NOT NULL,
    label        text NOT NULL CHECK (length(label) BETWEEN 1 AND 64),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_address, address)
);

-- A note for a whole transaction (n null: written before sending) or for one row of it; the text is sealed.
CREATE TABLE memos (
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    chain_id     bigint NOT NULL,
    tx_hash      hash32 NOT NULL,
    n            integer,
    memo         bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (user_address, chain_id, tx_hash, n)
);

-- Categories -------------------------------------------------------------------------------------------------------

CREATE TABLE categories (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    owner       address REFERENCES users (address) ON DELETE CASCADE,
    slug        text UNIQUE,
    name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    description text NOT NULL DEFAULT '',
    icon_url    text,
    color_hex   text NOT NULL CHECK (color_hex ~ '^#[0-9A-F]{6}$'),
    parent_id   uuid REFERENCES categories (id),
    is_default  boolean NOT NULL DEFAULT false,
    is_active   boolean NOT NULL DEFAULT true,
    sort_order  integer NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (is_default = (owner IS NULL))
);
CREATE UNIQUE INDEX categories_own_name ON categories (owner, lower(name)) WHERE owner IS NOT NULL AND is_active;

INSERT INTO categories (id, slug, name, description, icon_url, color_hex, is_default, sort_order) VALUES
    ('00000000-0000-4000-8000-000000000001', 'food', 'Food & Dining', 'Restaurants, groceries, delivery', '/icons/food.svg', '#FF6B6B', true, 1),
    ('00000000-0000-4000-8000-000000000002', 'transport', 'Transportation', 'Gas, public transport, rideshare', '/icons/transport.svg', '#4ECDC4', true, 2),
    ('00000000-0000-4000-8000-000000000003', 'shopping', 'Shopping', 'Retail, online shopping, clothing', '/icons/shopping.svg', '#45B7D1', true, 3),
    ('00000000-0000-4000-8000-000000000004', 'entertainment', 'Entertainment', 'Movies, games, streaming services', '/icons/entertainment.svg', '#96CEB4', true, 4),
    ('00000000-0000-4000-8000-000000000005', 'health', 'Health & Fitness', 'Medical, gym, supplements', '/icons/health.svg', '#FFEAA7', true, 5),
    ('00000000-0000-4000-8000-000000000006', 'utilities', 'Utilities', 'Phone, internet, electricity', '/icons/utilities.svg', '#DDA0DD', true, 6),
    ('00000000-0000-4000-8000-000000000007', 'investment', 'Investment', 'DeFi, stocks, crypto', '/icons/investment.svg', '#98D8C8', true, 7),
    ('00000000-0000-4000-8000-000000000008', 'savings', 'Savings', 'Emergency fund, goals', '/icons/savings.svg', '#F7DC6F', true, 8)
ON CONFLICT (id) DO NOTHING;

-- What one user makes of a category, and the budget for it: null none, 0 nothing may be spent.
CREATE TABLE user_categories (
    user_address     address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    category_id      uuid NOT NULL REFERENCES categories (id) ON DELETE CASCADE,
    custom_name      text CHECK (length(custom_name) BETWEEN 1 AND 100),
    custom_icon_url  text,
    custom_color_hex text CHECK (custom_color_hex ~ '^#[0-9A-F]{6}$'),
    is_favorite      boolean NOT NULL DEFAULT false,
    monthly_budget   numeric(20, 2) CHECK (monthly_budget >= 0),
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_address, category_id)
);

-- Belongs to the transaction id, so it survives re-inclusion. One row per user and transaction.
CREATE TABLE transaction_categories (
    user_address       address NOT NULL,
    transaction_id     text NOT NULL,
    chain_id           bigint NOT NULL,
    category_id        uuid NOT NULL REFERENCES categories (id),
    confidence_score   numeric(3, 2) NOT NULL CHECK (confidence_score BETWEEN 0 AND 1),
    source             text NOT NULL CHECK (source IN ('rule', 'history', 'model', 'manual')),
    reasoning          text NOT NULL DEFAULT '',
    is_manual_override boolean NOT NULL DEFAULT false,
    -- how often it was decided: part of the ids of what was told about it
    revision           integer NOT NULL DEFAULT 1,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_address, transaction_id)
);

-- A user's own rules; the value is compared as a whole, lower-case (a bucket or payee), or as a word (memo).
CREATE TABLE category_rules (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    field        text NOT NULL CHECK (field IN ('counterparty', 'bucket', 'memo')),
    value        text NOT NULL CHECK (length(value) BETWEEN 1 AND 200),
    category_id  uuid NOT NULL REFERENCES categories (id) ON DELETE CASCADE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_address, field, value)
);

-- How often a user's transactions with a feature (`counterparty:0x…`, `bucket:food`, `band:3`, `memo:taxi`) had a category.
CREATE TABLE category_memory (
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    feature      text NOT NULL,
    category_id  uuid NOT NULL REFERENCES categories (id) ON DELETE CASCADE,
    count        integer NOT NULL,
    PRIMARY KEY (user_address, feature, category_id)
);

-- What model calls cost a user on a day (UTC); the cap is checked before a call.
CREATE TABLE ai_usage (
    user_address  address NOT NULL,
    day           date NOT NULL,
    provider      text NOT NULL,
    model         text NOT NULL,
    calls         integer NOT NULL DEFAULT 0,
    input_tokens  bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cost_usd      numeric(20, 8) NOT NULL DEFAULT 0,
    PRIMARY KEY (user_address, day, provider, model)
);

-- Budgets and alerts -----------------------------------------------------------------------------------------------

-- Edges that were crossed. armed: may alert again in this period, since spending fell back far enough.
CREATE TABLE alert_edges (
    user_address address NOT NULL,
    scope        text NOT NULL CHECK (scope IN ('bucket', 'category')),
    subject      text NOT NULL,
    period_start timestamptz NOT NULL,
    edge         text NOT NULL,
    event_id     text NOT NULL,
    armed        boolean NOT NULL DEFAULT false,
    fired_at     timestamptz NOT NULL,
    PRIMARY KEY (user_address, scope, subject, period_start, edge)
);

-- Inbox and channels -----------------------------------------------------------------------------------------------

CREATE TABLE notifications (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_address   address NOT NULL,
    event_id       text NOT NULL,
    kind           text NOT NULL,
    title          text NOT NULL,
    body           text NOT NULL,
    severity       text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    transaction_id text,
    facts          jsonb NOT NULL DEFAULT '{}',
    created_at     timestamptz NOT NULL,
    read_at        timestamptz,
    corrected_at   timestamptz,
    UNIQUE (user_address, event_id)
);
CREATE INDEX notifications_inbox ON notifications (user_address, created_at DESC, id DESC);
CREATE INDEX notifications_unread ON notifications (user_address) WHERE read_at IS NULL AND corrected_at IS NULL;

CREATE TABLE notification_preferences (
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    kind         text NOT NULL,
    channel      text NOT NULL CHECK (channel IN ('push', 'email', 'inbox')),
    enabled      boolean NOT NULL,
    PRIMARY KEY (user_address, kind, channel)
);

-- token: sealed; token_hash finds it. A token belongs to one user at a time.
CREATE TABLE devices (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    token_hash   bytea NOT NULL UNIQUE,
    token        bytea NOT NULL,
    platform     text NOT NULL CHECK (platform IN ('android', 'ios', 'web')),
    locale       text NOT NULL DEFAULT 'en',
    app_version  text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX devices_user ON devices (user_address);

-- One row per effect that a phone is to be told: recorded with its event, so that it is sent once whatever happens.
CREATE TABLE pushes (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_address address NOT NULL,
    subject      text NOT NULL,
    event_id     text NOT NULL,
    seq          bigint NOT NULL,
    kind         text NOT NULL,
    facts        jsonb NOT NULL,
    not_before   timestamptz NOT NULL,
    state        text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'sending', 'sent', 'held', 'dropped', 'replaced')),
    reason       text,
    attempts     integer NOT NULL DEFAULT 0,
    reverted_at  timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_address, subject)
);
CREATE INDEX pushes_due ON pushes (not_before) WHERE state IN ('due', 'sending');
CREATE INDEX pushes_reverted ON pushes (reverted_at) WHERE reverted_at IS NOT NULL AND state = 'sent';
