-- due --
-- Users with a budget whose months were not looked at since the month began that it now is in their zone.
SELECT u.address, u.time_zone FROM users AS u LEFT JOIN month_profiles AS p ON p.user_address = u.address
WHERE (u.monthly_budget IS NOT NULL OR EXISTS (
        SELECT FROM user_categories AS c WHERE c.user_address = u.address AND c.monthly_budget IS NOT NULL))
    AND p.learned_for IS DISTINCT FROM date_trunc('month', $1::timestamptz AT TIME ZONE u.time_zone)::date
ORDER BY u.address LIMIT $2

-- days --
-- What counted for budgets (budgets.sql, figures) by category and day of each user's calendar; unpriced is in no sum.
SELECT t.user_address, a.category_id, (t.block_time AT TIME ZONE m.zone)::date AS day, sum(t.usd) AS spent
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS m (user_address, zone, since, until)
JOIN transactions AS t ON t.user_address = m.user_address AND t.canonical AND t.role = 'owner'
    AND t.block_time >= m.since AND t.block_time < m.until AND t.usd IS NOT NULL
LEFT JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
WHERE t.type = 'spend'
    OR (t.type = 'transfer' AND t.direction = 'out' AND a.category_id IS NOT NULL AND t.counterparty <> t.user_address)
GROUP BY 1, 2, 3

-- save --
INSERT INTO month_profiles (user_address, learned_for, profiles)
SELECT user_address, learned_for, profiles FROM unnest($1::text[], $2::date[], $3::jsonb[])
     AS p (user_address, learned_for, profiles)
ON CONFLICT (user_address) DO UPDATE SET
    learned_for = excluded.learned_for, profiles = excluded.profiles, updated_at = now()
