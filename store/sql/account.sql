-- profile --
-- Amounts are text in all of these: a JSON number is a float to most readers.
SELECT address AS key, email AS sealed, json_build_object(
    'address', address, 'displayName', display_name, 'avatarUrl', avatar_url, 'timeZone', time_zone, 'locale', locale,
    'riskProfile', risk_profile, 'aiConsent', ai_consent, 'compareConsent', compare_consent, 'monthlyBudget', monthly_budget::text,
    'alertThresholds', alert_thresholds, 'quietStart', quiet_start, 'quietEnd', quiet_end,
    'hideAmounts', hide_amounts, 'digest', digest, 'createdAt', created_at, 'updatedAt', updated_at)::text AS body
FROM users WHERE address = $1 AND address > $2 ORDER BY address LIMIT $3

-- contact --
SELECT address AS key, json_build_object(
    'address', address, 'label', label, 'createdAt', created_at, 'updatedAt', updated_at)::text AS body
FROM contacts WHERE user_address = $1 AND address > $2 ORDER BY address LIMIT $3

-- category --
SELECT id::text AS key, json_build_object(
    'id', id, 'name', name, 'description', description, 'colorHex', color_hex, 'parentId', parent_id,
    'isActive', is_active, 'sortOrder', sort_order, 'createdAt', created_at, 'updatedAt', updated_at)::text AS body
FROM categories WHERE owner = $1 AND id::text > $2 ORDER BY id::text LIMIT $3

-- category_preference --
SELECT category_id::text AS key, json_build_object(
    'categoryId', category_id, 'customName', custom_name, 'customIconUrl', custom_icon_url,
    'customColorHex', custom_color_hex, 'isFavorite', is_favorite, 'monthlyBudget', monthly_budget::text,
    'createdAt', created_at, 'updatedAt', updated_at)::text AS body
FROM user_categories WHERE user_address = $1 AND category_id::text > $2 ORDER BY category_id::text LIMIT $3

-- category_rule --
SELECT id::text AS key, json_build_object(
    'id', id, 'field', field, 'value', value, 'categoryId', category_id, 'createdAt', created_at)::text AS body
FROM category_rules WHERE user_address = $1 AND id::text > $2 ORDER BY id::text LIMIT $3

-- bucket --
SELECT bucket_id AS key, json_build_object(
    'id', bucket_id, 'chainId', chain_id, 'wallet', wallet, 'name', name, 'active', active,
    'monthlyLimit', monthly_limit::text, 'spent', spent::text, 'periodStart', period_start,
    'delegates', delegates)::text AS body
FROM buckets WHERE user_address = $1 AND bucket_id > $2 ORDER BY bucket_id LIMIT $3

-- balance --
SELECT concat_ws('|', chain_id, scope, wallet, bucket_id, token) AS key, json_build_object(
    'chainId', chain_id, 'scope', scope, 'wallet', wallet, 'bucketId', bucket_id, 'token', token,
    'amountRaw', amount::text)::text AS body
FROM balances WHERE user_address = $1 AND concat_ws('|', chain_id, scope, wallet, bucket_id, token) > $2
ORDER BY concat_ws('|', chain_id, scope, wallet, bucket_id, token) LIMIT $3

-- account --
SELECT concat_ws('|', chain_id, account_type) AS key, json_build_object(
    'chainId', chain_id, 'accountType', account_type, 'accountName', account_name, 'isActive', is_active,
    'createdAt', created_at, 'updatedAt', updated_at)::text AS body
FROM user_accounts WHERE user_address = $1 AND concat_ws('|', chain_id, account_type) > $2
ORDER BY concat_ws('|', chain_id, account_type) LIMIT $3

-- position --
SELECT concat_ws('|', chain_id, position_id) AS key, json_build_object(
    'chainId', chain_id, 'positionId', position_id, 'kind', kind, 'protocol', protocol_name, 'asset', asset_address,
    'symbol', asset_symbol, 'shares', shares::text, 'principalRaw', principal::text, 'entryPrice', entry_price::text,
    'valueRaw', current_value::text, 'yieldRaw', yield_earned::text, 'valueUsd', value_usd::text,
    'yieldUsd', yield_usd::text, 'apy', apy::text, 'asOfBlock', as_of_block)::text AS body
FROM investment_positions WHERE user_address = $1 AND concat_ws('|', chain_id, position_id) > $2
ORDER BY concat_ws('|', chain_id, position_id) LIMIT $3

-- goal --
SELECT goal_id AS key, json_build_object(
    'goalId', goal_id, 'name', goal_name, 'targetAmount', target_amount::text, 'currentAmount', current_amount::text,
    'targetDate', target_date, 'categoryId', category_id, 'link', link_kind, 'chainId', chain_id, 'linkId', link_id,
    'yieldEarned', yield_earned::text, 'startedOn', started_on, 'completedAt', completed_at,
    'isActive', is_active)::text AS body
FROM savings_goals WHERE user_address = $1 AND goal_id > $2 ORDER BY goal_id LIMIT $3

-- achievement --
SELECT concat_ws('|', code, round) AS key, json_build_object(
    'code', code, 'unlockedAt', unlocked_at, 'revokedAt', revoked_at)::text AS body
FROM achievements WHERE user_address = $1 AND concat_ws('|', code, round) > $2
ORDER BY concat_ws('|', code, round) LIMIT $3

-- friend --
-- An address only where the user typed it; of those who are blocked, the name that they had then.
SELECT f.id::text AS key, json_build_object(
    'id', f.id, 'status', f.state, 'address', CASE WHEN f.typed THEN f.other END,
    'displayName', CASE WHEN f.state = 'blocked' THEN f.called ELSE u.display_name END,
    'since', f.changed_at)::text AS body
FROM friends AS f LEFT JOIN users AS u ON u.address = f.other
WHERE f.user_address = $1 AND f.state IN ('friends', 'received', 'blocked') AND f.id::text > $2
ORDER BY f.id::text LIMIT $3

-- friend_request --
SELECT id::text AS key, json_build_object('id', id, 'address', address, 'askedAt', asked_at)::text AS body
FROM friend_requests WHERE user_address = $1 AND is_open AND id::text > $2 ORDER BY id::text LIMIT $3

-- friend_invitation --
-- Its token is known to nobody but whom the link was given to.
SELECT id::text AS key, json_build_object(
    'id', id, 'usesLeft', uses_left, 'expiresAt', expires_at, 'createdAt', created_at)::text AS body
FROM friend_invitations WHERE user_address = $1 AND id::text > $2 ORDER BY id::text LIMIT $3

-- comparison --
-- Of whom a cohort was, no answer says.
SELECT concat_ws('|', month, category_id) AS key, json_build_object(
    'month', month, 'categoryId', category_id, 'cohortBand', cohort_band)::text AS body
FROM comparison_releases WHERE user_address = $1 AND concat_ws('|', month, category_id) > $2
ORDER BY concat_ws('|', month, category_id) LIMIT $3

-- challenge --
-- Those that the user made, or takes part in, or did.
SELECT c.id::text AS key, json_build_object(
    'id', c.id, 'isCreator', coalesce(c.creator = $1, false), 'name', c.name, 'description', c.description,
    'measure', c.measure, 'visibility', c.visibility, 'target', c.target::text, 'startsAt', c.starts_at,
    'endsAt', c.ends_at, 'cancelledAt', c.cancelled_at, 'settledAt', c.settled_at, 'createdAt', c.created_at)::text AS body
FROM challenges AS c
WHERE c.id IN (SELECT id FROM challenges WHERE creator = $1
               UNION SELECT challenge_id FROM challenge_participants WHERE user_address = $1)
    AND c.id::text > $2
ORDER BY c.id::text LIMIT $3

-- challenge_part --
-- Of the others nothing: neither who they are nor how far.
SELECT challenge_id::text AS key, json_build_object(
    'challengeId', challenge_id, 'joinedAt', joined_at, 'leftAt', left_at, 'timeZone', time_zone,
    'monthlyBudget', monthly_budget::text, 'buckets', buckets, 'score', score, 'amount', amount::text,
    'unpriced', unpriced, 'measuredAt', measured_at, 'finalRank', final_rank)::text AS body
FROM challenge_participants WHERE user_address = $1 AND challenge_id::text > $2 ORDER BY challenge_id::text LIMIT $3

-- challenge_invite --
-- Invitations that the user was sent.
SELECT challenge_id::text AS key, json_build_object(
    'challengeId', challenge_id, 'invitedAt', invited_at, 'declinedAt', declined_at)::text AS body
FROM challenge_invites WHERE user_address = $1 AND challenge_id::text > $2 ORDER BY challenge_id::text LIMIT $3

-- challenge_link --
SELECT id::text AS key, json_build_object(
    'id', id, 'challengeId', challenge_id, 'usesLeft', uses_left, 'expiresAt', expires_at,
    'createdAt', created_at)::text AS body
FROM challenge_links WHERE inviter = $1 AND id::text > $2 ORDER BY id::text LIMIT $3

-- memo --
SELECT concat_ws('|', chain_id, tx_hash, n) AS key, memo AS sealed, json_build_object(
    'chainId', chain_id, 'txHash', tx_hash, 'n', n, 'createdAt', created_at, 'updatedAt', updated_at)::text AS body
FROM memos WHERE user_address = $1 AND concat_ws('|', chain_id, tx_hash, n) > $2
ORDER BY concat_ws('|', chain_id, tx_hash, n) LIMIT $3

-- notification --
SELECT id::text AS key, json_build_object(
    'id', id, 'eventId', event_id, 'kind', kind, 'title', title, 'body', body, 'severity', severity,
    'transactionId', transaction_id, 'createdAt', created_at, 'readAt', read_at, 'correctedAt', corrected_at)::text AS body
FROM notifications WHERE user_address = $1 AND id::text > $2 ORDER BY id::text LIMIT $3

-- notification_preference --
SELECT concat_ws('|', kind, channel) AS key, json_build_object(
    'kind', kind, 'channel', channel, 'enabled', enabled)::text AS body
FROM notification_preferences WHERE user_address = $1 AND concat_ws('|', kind, channel) > $2
ORDER BY concat_ws('|', kind, channel) LIMIT $3

-- device --
-- Its token is never given back.
SELECT id::text AS key, json_build_object(
    'id', id, 'platform', platform, 'locale', locale, 'appVersion', app_version, 'createdAt', created_at,
    'updatedAt', updated_at)::text AS body
FROM devices WHERE user_address = $1 AND id::text > $2 ORDER BY id::text LIMIT $3

-- session --
SELECT id::text AS key, json_build_object(
    'id', id, 'userAgent', user_agent, 'ipAddress', host(ip_address), 'createdAt', created_at,
    'lastUsedAt', last_used_at, 'revokedAt', revoked_at, 'revokedReason', revoked_reason)::text AS body
FROM sessions WHERE user_address = $1 AND id::text > $2 ORDER BY id::text LIMIT $3

-- audit --
SELECT to_char(id, 'FM0000000000000000000') AS key, json_build_object(
    'id', id, 'action', action, 'metadata', metadata, 'ipAddress', host(ip_address), 'userAgent', user_agent,
    'timestamp', "timestamp")::text AS body
FROM audit_logs WHERE user_id = $1 AND to_char(id, 'FM0000000000000000000') > $2
ORDER BY to_char(id, 'FM0000000000000000000') LIMIT $3

-- ai_usage --
SELECT concat_ws('|', day, provider, model) AS key, json_build_object(
    'day', day, 'provider', provider, 'model', model, 'calls', calls, 'inputTokens', input_tokens,
    'outputTokens', output_tokens, 'costUsd', cost_usd::text)::text AS body
FROM ai_usage WHERE user_address = $1 AND concat_ws('|', day, provider, model) > $2
ORDER BY concat_ws('|', day, provider, model) LIMIT $3
