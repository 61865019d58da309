-- How a user's spending spreads over a month, learned once a month from whole months of the ledger. Before deploy:
-- nothing here changes what older code reads.

-- By category id, or `total`: [months, cents by day of the month (31), cents a day by quarter of the month (4),
-- thousandths by weekday (7)]. '{}' where there are fewer than three whole months. Only users with a budget have a row.
CREATE TABLE month_profiles (
    user_address address PRIMARY KEY REFERENCES users (address) ON DELETE CASCADE,
    -- first day of the month (in the user's zone) whose beginning it was learned at
    learned_for  date NOT NULL,
    profiles     jsonb NOT NULL DEFAULT '{}',
    updated_at   timestamptz NOT NULL DEFAULT now()
);
