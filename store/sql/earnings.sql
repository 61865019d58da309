-- evenings --
-- Signed-in users with something invested (or taken out within two days, for a day has at most 25 hours and clocks
-- differ by 26) whose local evening has begun and whose day was not looked at. One user's zone is one day.
SELECT u.address, u.time_zone, ($1::timestamptz AT TIME ZONE u.time_zone)::date AS day
FROM users AS u
JOIN user_counters AS c ON c.user_address = u.address AND c.opened_at IS NOT NULL
WHERE EXISTS (
        SELECT FROM investment_positions AS p
        WHERE p.user_address = u.address
            AND (p.shares > 0 OR p.principal > 0 OR p.last_updated_at > $1::timestamptz - interval '2 days'))
    AND extract(hour FROM $1::timestamptz AT TIME ZONE u.time_zone) >= $2::int
    AND NOT EXISTS (
        SELECT FROM daily_yields AS d
        WHERE d.user_address = u.address AND d.day = ($1::timestamptz AT TIME ZONE u.time_zone)::date)
ORDER BY u.address LIMIT $3

-- record --
-- A day that is there already stays as it was told.
INSERT INTO daily_yields (user_address, day, yield_usd, unpriced, computed_at)
SELECT user_address, day, yield_usd::numeric, unpriced, $5
FROM unnest($1::text[], $2::date[], $3::text[], $4::int[]) AS d (user_address, day, yield_usd, unpriced)
ON CONFLICT DO NOTHING
RETURNING user_address
