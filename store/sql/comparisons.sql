-- cohort --
-- Friends of a user who share, and whether they were users when the month ended; the user is not among them. Both
-- sides have to call each other friends: one row that says otherwise ends it.
SELECT f.other, u.created_at < $2 AS present
FROM friends AS f
JOIN friends AS g ON g.user_address = f.other AND g.other = f.user_address AND g.state = 'friends'
JOIN users AS u ON u.address = f.other AND u.compare_consent
WHERE f.user_address = $1 AND f.state = 'friends'
ORDER BY f.other

-- consents --
SELECT compare_consent FROM users WHERE address = $1

-- past --
SELECT month, members FROM comparison_cohorts WHERE user_address = $1 ORDER BY month

-- spent --
-- What counts for budgets (budgets.sql, figures), of many users in one month of each one's own calendar, by category.
SELECT u.address, a.category_id, coalesce(sum(t.usd), 0) AS spent, count(*) FILTER (WHERE t.usd IS NULL) AS unpriced
FROM users AS u
JOIN transactions AS t ON t.user_address = u.address AND t.canonical AND t.role = 'owner'
    AND t.block_time >= $2::date::timestamp AT TIME ZONE u.time_zone
    AND t.block_time < ($2::date + interval '1 month')::timestamp AT TIME ZONE u.time_zone
JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
JOIN categories AS c ON c.id = a.category_id AND c.is_default
WHERE u.address = ANY ($1::text[])
    AND (t.type = 'spend'
        OR (t.type = 'transfer' AND t.direction = 'out' AND t.counterparty <> t.user_address))
GROUP BY u.address, a.category_id

-- categories --
-- What everybody has, and so can be compared by.
SELECT id FROM categories WHERE is_default AND is_active ORDER BY sort_order, id

-- own_category --
SELECT EXISTS (SELECT FROM categories WHERE id = $2 AND owner = $1 AND is_active)

-- release_cohort --
INSERT INTO comparison_cohorts (user_address, month, members, released_at) VALUES ($1, $2, $3, $4)

-- release --
INSERT INTO comparison_releases (user_address, month, category_id, cohort_band)
SELECT $1, $2, category_id, band FROM unnest($3::uuid[], $4::smallint[]) AS r (category_id, band)

-- released --
SELECT category_id, cohort_band FROM comparison_releases WHERE user_address = $1 AND month = $2
