-- uncategorized --
-- Spends of a block that have no category, of signed-in users, in order, with what models may read; above a position.
SELECT t.user_address, t.id, t.chain_id, t.tx_hash, t.n, t.counterparty, t.bucket, t.usd, c.label, u.ai_consent
FROM transactions AS t
JOIN user_counters AS k ON k.user_address = t.user_address AND k.opened_at IS NOT NULL
JOIN users AS u ON u.address = t.user_address
LEFT JOIN contacts AS c ON c.user_address = t.user_address AND c.address = t.counterparty
WHERE t.chain_id = $1 AND t.block_hash = $2 AND t.canonical AND t.role = 'owner' AND t.type = 'spend'
    AND NOT EXISTS (
        SELECT FROM transaction_categories AS a WHERE a.user_address = t.user_address AND a.transaction_id = t.id
    )
    AND (t.user_address, t.id) > ($3, $4)
ORDER BY t.user_address, t.id LIMIT $5

-- spend --
-- One spend of a signed-in user, unless its category was chosen by hand.
SELECT t.user_address, t.id, t.chain_id, t.tx_hash, t.n, t.counterparty, t.bucket, t.usd, c.label, u.ai_consent
FROM transactions AS t
JOIN user_counters AS k ON k.user_address = t.user_address AND k.opened_at IS NOT NULL
JOIN users AS u ON u.address = t.user_address
LEFT JOIN contacts AS c ON c.user_address = t.user_address AND c.address = t.counterparty
WHERE t.user_address = $1 AND t.id = $2 AND t.canonical AND t.role = 'owner' AND t.type = 'spend'
    AND NOT EXISTS (
        SELECT FROM transaction_categories AS a
        WHERE a.user_address = t.user_address AND a.transaction_id = t.id AND a.is_manual_override
    )

-- candidates --
-- Active categories of these users under the names they gave them: the defaults first, then their own.
SELECT w.user_address, c.id, c.slug, coalesce(p.custom_name, c.name) AS name, c.description
FROM unnest($1::text[]) AS w (user_address)
JOIN categories AS c ON c.is_active AND (c.owner IS NULL OR c.owner = w.user_address)
LEFT JOIN user_categories AS p ON p.user_address = w.user_address AND p.category_id = c.id
ORDER BY w.user_address, c.is_default DESC, c.sort_order, c.id

-- lock_usage --
-- Held to the end of the transaction: two workers must not both take the last cent.
SELECT pg_advisory_xact_lock(hashtextextended('ai_usage:' || $1, 0))

-- spent --
SELECT coalesce(sum(cost_usd), 0) FROM ai_usage WHERE user_address = $1 AND day = $2

-- charge --
INSERT INTO ai_usage (user_address, day, provider, model, calls, input_tokens, output_tokens, cost_usd)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (user_address, day, provider, model) DO UPDATE SET
    calls = ai_usage.calls + excluded.calls,
    input_tokens = ai_usage.input_tokens + excluded.input_tokens,
    output_tokens = ai_usage.output_tokens + excluded.output_tokens,
    cost_usd = ai_usage.cost_usd + excluded.cost_usd

-- usage --
SELECT day, provider, model, calls, input_tokens, output_tokens, cost_usd FROM ai_usage
WHERE user_address = $1 AND day >= $2
ORDER BY day DESC, provider, model
