-- Achievements: what users unlocked, when that is looked at next, and how budgets stood. Before deploy: additive.

-- One row for each time that it was unlocked: a cause that was taken back and comes again is another round. What is held
-- has no revoked_at. causes and revoke_causes are events of the user's log.
CREATE TABLE achievements (
    user_address  address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    code          text NOT NULL,
    round         integer NOT NULL,
    event_id      text NOT NULL,
    -- whether a notification told of it
    notified      boolean NOT NULL,
    causes        text[] NOT NULL,
    unlocked_at   timestamptz NOT NULL,
    revoked_at    timestamptz,
    revoke_causes text[],
    PRIMARY KEY (user_address, code, round)
);
CREATE UNIQUE INDEX achievements_held ON achievements (user_address, code) WHERE revoked_at IS NULL;

-- When a user's day ends next: their periods are closed then, though nothing else happens.
CREATE TABLE achievement_looks (
    user_address address PRIMARY KEY REFERENCES users (address) ON DELETE CASCADE,
    next_at      timestamptz NOT NULL
);
CREATE INDEX achievement_looks_due ON achievement_looks (next_at);
INSERT INTO achievement_looks (user_address, next_at)
SELECT u.address, now() FROM users AS u
JOIN user_counters AS c ON c.user_address = u.address AND c.opened_at IS NOT NULL;

-- What a user's budgets were from `since` on, in dollars a month: a month is judged by those that stood when it closed.
-- total null: none was set, and the sum of `by_category` (category id -> dollars as text) is the budget.
CREATE TABLE budget_history (
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    since        timestamptz NOT NULL,
    total        numeric(20, 2),
    by_category  jsonb NOT NULL,
    PRIMARY KEY (user_address, since)
);
-- Budgets that stand already: they count for months that close from now on.
INSERT INTO budget_history (user_address, since, total, by_category)
SELECT u.address, now(), u.monthly_budget, coalesce(b.amounts, '{}')
FROM users AS u LEFT JOIN (
    SELECT c.user_address, jsonb_object_agg(c.category_id, c.monthly_budget::text) AS amounts
    FROM user_categories AS c WHERE c.monthly_budget IS NOT NULL GROUP BY c.user_address
) AS b ON b.user_address = u.address
WHERE u.monthly_budget IS NOT NULL OR b.amounts IS NOT NULL;
