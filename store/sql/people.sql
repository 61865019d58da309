-- person --
SELECT address, display_name, avatar_url, time_zone, locale, risk_profile, ai_consent, monthly_budget,
       alert_thresholds, quiet_start, quiet_end, hide_amounts, digest, email, revision, compare_consent
FROM users WHERE address = $1

-- lock_person --
SELECT address, display_name, avatar_url, time_zone, locale, risk_profile, ai_consent, monthly_budget,
       alert_thresholds, quiet_start, quiet_end, hide_amounts, digest, email, revision, compare_consent
FROM users WHERE address = $1 FOR NO KEY UPDATE

-- save_person --
UPDATE users SET
    display_name = $2, avatar_url = $3, time_zone = $4, locale = $5, risk_profile = $6, ai_consent = $7,
    monthly_budget = $8, alert_thresholds = $9, quiet_start = $10, quiet_end = $11, hide_amounts = $12, digest = $13,
    email = $14, revision = $15, updated_at = $16, compare_consent = $17
WHERE address = $1

-- contacts --
SELECT address, label, created_at, updated_at FROM contacts
WHERE user_address = $1 AND address > $2 ORDER BY address LIMIT $3

-- contact --
SELECT address, label, created_at, updated_at FROM contacts WHERE user_address = $1 AND address = $2

-- count_contacts --
-- Those beside this one, which may be known already.
SELECT count(*) FROM contacts WHERE user_address = $1 AND address <> $2

-- put_contact --
INSERT INTO contacts (user_address, address, label, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)
ON CONFLICT (user_address, address) DO UPDATE SET label = excluded.label, updated_at = excluded.updated_at
RETURNING address, label, created_at, updated_at

-- delete_contact --
DELETE FROM contacts WHERE user_address = $1 AND address = $2 RETURNING true

-- labels --
SELECT c.user_address, c.address, c.label
FROM unnest($1::text[], $2::text[]) AS w (user_address, address)
JOIN contacts AS c ON c.user_address = w.user_address AND c.address = w.address

-- set_avatar --
UPDATE users SET avatar_url = $2, revision = revision + 1, updated_at = $3 WHERE address = $1
