-- page --
-- Defaults first, then the user's own; what the user made of each beside it.
SELECT c.id, c.owner, c.name, c.description, c.icon_url, c.color_hex, c.parent_id, c.is_default, c.is_active,
       c.sort_order, u.custom_name, u.custom_icon_url, u.custom_color_hex, coalesce(u.is_favorite, false) AS is_favorite,
       u.monthly_budget
FROM categories AS c LEFT JOIN user_categories AS u ON u.category_id = c.id AND u.user_address = $1
WHERE (c.owner IS NULL OR c.owner = $1) AND (c.is_active OR $2)
  AND (NOT c.is_default, c.sort_order, c.id) > ($3::boolean, $4::int, $5::uuid)
ORDER BY NOT c.is_default, c.sort_order, c.id
LIMIT $6

-- one --
SELECT c.id, c.owner, c.name, c.description, c.icon_url, c.color_hex, c.parent_id, c.is_default, c.is_active,
       c.sort_order, u.custom_name, u.custom_icon_url, u.custom_color_hex, coalesce(u.is_favorite, false) AS is_favorite,
       u.monthly_budget
FROM categories AS c LEFT JOIN user_categories AS u ON u.category_id = c.id AND u.user_address = $1
WHERE (c.owner IS NULL OR c.owner = $1) AND c.id = $2

-- parents --
-- The tree that a user sees: every active category and what it is under.
SELECT id, parent_id FROM categories WHERE (owner IS NULL OR owner = $1) AND is_active

-- count_own --
SELECT count(*) FROM categories WHERE owner = $1 AND is_active

-- name_taken --
SELECT EXISTS (SELECT FROM categories WHERE owner = $1 AND is_active AND lower(name) = lower($2) AND id <> $3)

-- insert --
INSERT INTO categories (id, owner, name, description, color_hex, parent_id, sort_order) VALUES ($1, $2, $3, $4, $5, $6, $7)

-- update --
UPDATE categories SET name = $3, description = $4, color_hex = $5, parent_id = $6, sort_order = $7, updated_at = now()
WHERE id = $2 AND owner = $1

-- deactivate --
UPDATE categories SET is_active = false, updated_at = now() WHERE id = $2 AND owner = $1

-- set_preferences --
INSERT INTO user_categories (user_address, category_id, custom_name, custom_color_hex, is_favorite, monthly_budget)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (user_address, category_id) DO UPDATE SET
    custom_name = excluded.custom_name, custom_color_hex = excluded.custom_color_hex,
    is_favorite = excluded.is_favorite, monthly_budget = excluded.monthly_budget, updated_at = now()

-- set_icon --
INSERT INTO user_categories (user_address, category_id, custom_icon_url) VALUES ($1, $2, $3)
ON CONFLICT (user_address, category_id) DO UPDATE SET custom_icon_url = excluded.custom_icon_url, updated_at = now()

-- rules_page --
SELECT id, field, value, category_id, created_at FROM category_rules
WHERE user_address = $1 AND (created_at, id) < ($2, $3)
ORDER BY created_at DESC, id DESC
LIMIT $4

-- count_rules --
SELECT count(*) FROM category_rules WHERE user_address = $1

-- rule_exists --
SELECT EXISTS (SELECT FROM category_rules WHERE user_address = $1 AND field = $2 AND value = $3)

-- save_rule --
-- One rule per field and value: a second one says where such transactions go from now on.
INSERT INTO category_rules (user_address, field, value, category_id, created_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (user_address, field, value) DO UPDATE SET category_id = excluded.category_id
RETURNING id, field, value, category_id, created_at

-- delete_rule --
DELETE FROM category_rules WHERE user_address = $1 AND id = $2 RETURNING true

-- forget_rules --
DELETE FROM category_rules WHERE user_address = $1 AND category_id = $2

-- forget_memory --
-- What history would otherwise go on suggesting.
DELETE FROM category_memory WHERE user_address = $1 AND category_id = $2
