-- register --
-- A token that another user had is this one's now; its row gets a new id, since the old one is known to them.
INSERT INTO devices (user_address, token_hash, token, platform, locale, app_version, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
ON CONFLICT (token_hash) DO UPDATE SET
    id = CASE WHEN devices.user_address = excluded.user_address THEN devices.id ELSE gen_random_uuid() END,
    created_at = CASE WHEN devices.user_address = excluded.user_address THEN devices.created_at
                      ELSE excluded.created_at END,
    user_address = excluded.user_address, token = excluded.token, platform = excluded.platform,
    locale = excluded.locale, app_version = excluded.app_version, updated_at = excluded.updated_at
RETURNING id, user_address, platform, locale, app_version, created_at, updated_at

-- trim --
DELETE FROM devices WHERE user_address = $1 AND id NOT IN (
    SELECT id FROM devices WHERE user_address = $1 ORDER BY updated_at DESC, id LIMIT $2
)

-- forget_token --
DELETE FROM devices WHERE user_address = $1 AND token_hash = $2

-- listed --
SELECT id, user_address, platform, locale, app_version, created_at, updated_at FROM devices
WHERE user_address = $1 ORDER BY updated_at DESC, id

-- remove --
DELETE FROM devices WHERE user_address = $1 AND id = $2 RETURNING true

-- reachable --
SELECT id, user_address, token, locale FROM devices WHERE user_address = ANY ($1::text[]) ORDER BY created_at, id

-- prune_token --
-- Only while it is the token that was refused: the device may have registered anew meanwhile.
DELETE FROM devices WHERE id = $1 AND token = $2 RETURNING true
