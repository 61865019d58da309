-- ask --
-- Category null: the user's avatar.
-- The last picture sent wins; an earlier one that is still on its way is passed over. `picture` stays until it is replaced.
INSERT INTO category_images (user_address, category_id, upload, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)
ON CONFLICT (user_address, category_id) DO UPDATE SET
    upload = excluded.upload, status = 'queued', reason = NULL, tries = 0,
    created_at = excluded.created_at, updated_at = excluded.updated_at

-- one --
SELECT upload, status, reason, picture, tries, created_at, updated_at FROM category_images
WHERE user_address = $1 AND category_id IS NOT DISTINCT FROM $2

-- start --
-- Counted before anything is decoded: a picture that takes its process down is counted too.
UPDATE category_images SET status = 'processing', tries = tries + 1, updated_at = $4
WHERE user_address = $1 AND category_id IS NOT DISTINCT FROM $2 AND upload = $3 AND status IN ('queued', 'processing')
RETURNING tries

-- finish --
UPDATE category_images SET status = $4, reason = $5, picture = coalesce($6, picture), updated_at = $7
WHERE user_address = $1 AND category_id IS NOT DISTINCT FROM $2 AND upload = $3 AND status IN ('queued', 'processing')
RETURNING true

-- remove --
DELETE FROM category_images WHERE user_address = $1 AND category_id IS NOT DISTINCT FROM $2

-- hold_picture --
-- Whoever stores or deletes a picture of this name does so alone, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('picture:' || $1, 0))

-- is_used --
SELECT EXISTS (SELECT FROM category_images WHERE picture = $1)

-- pending_uploads --
SELECT upload FROM category_images WHERE upload = ANY ($1::text[]) AND status IN ('queued', 'processing')
