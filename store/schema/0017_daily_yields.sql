-- What each user's investments earned on a day of their calendar, as of its evening; written once, before anyone is told.
-- Before deploy: nothing reads it yet.
CREATE TABLE daily_yields (
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    day          date NOT NULL,
    -- dollars; what has no price is counted beside it
    yield_usd    numeric NOT NULL,
    unpriced     integer NOT NULL,
    computed_at  timestamptz NOT NULL,
    PRIMARY KEY (user_address, day)
);
