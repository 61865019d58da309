-- lock --
-- Held to the end of the transaction, taken before anything is read: what is written is never older than what another
-- job wrote. A few locks for all users, so that a large block does not fill the table of locks.
SELECT pg_advisory_xact_lock(hashtext('search'), k) FROM unnest($1::int[]) AS k ORDER BY k

-- of_block --
SELECT DISTINCT user_address, id FROM transactions
WHERE chain_id = $1 AND block_hash = $2 AND (user_address, id) > ($3::text, $4::text)
ORDER BY user_address, id LIMIT $5

-- of_hash --
SELECT DISTINCT user_address, id FROM transactions
WHERE user_address = $1 AND chain_id = $2 AND tx_hash = $3 AND id > $4
ORDER BY id LIMIT $5

-- of_payee --
SELECT user_address, id FROM transactions
WHERE user_address = $1 AND canonical AND counterparty = $2 AND id > $3
ORDER BY id LIMIT $4

-- of_category --
SELECT user_address, transaction_id AS id FROM transaction_categories
WHERE user_address = $1 AND category_id = $2 AND transaction_id > $3
ORDER BY transaction_id LIMIT $4

-- of_user --
SELECT user_address, id FROM transactions
WHERE user_address = $1 AND canonical AND id > $2
ORDER BY id LIMIT $3

-- users --
-- Everyone with a ledger, by one look into its index for each.
WITH RECURSIVE u AS (
    (SELECT user_address FROM transactions WHERE user_address > $1 ORDER BY user_address LIMIT 1)
    UNION ALL
    SELECT (SELECT t.user_address FROM transactions AS t WHERE t.user_address > u.user_address
            ORDER BY t.user_address LIMIT 1)
    FROM u WHERE u.user_address IS NOT NULL
)
SELECT user_address FROM u WHERE user_address IS NOT NULL LIMIT $2

-- sources --
-- What these transactions say now, as their user sees them; no row for one that no longer counts. What a delegate did
-- with the owner's money shows the delegate no category.
SELECT k.user_address, k.id, t.chain_id, t.tx_hash, t.n, t.role, t.bucket, t.to_bucket, c.label,
       coalesce(p.custom_name, g.name) AS category
FROM unnest($1::text[], $2::text[]) AS k (user_address, id)
JOIN transactions AS t ON t.user_address = k.user_address AND t.id = k.id AND t.canonical
LEFT JOIN contacts AS c ON c.user_address = k.user_address AND c.address = t.counterparty
LEFT JOIN transaction_categories AS a ON a.user_address = k.user_address AND a.transaction_id = k.id
    AND t.role = 'owner'
LEFT JOIN categories AS g ON g.id = a.category_id
LEFT JOIN user_categories AS p ON p.user_address = k.user_address AND p.category_id = a.category_id

-- save_texts --
-- One that is there says the same, since its id is a hash of it. Signed-in users with new texts come back: theirs are
-- to be read for what they mean.
WITH made AS (
    INSERT INTO search_texts (user_address, id, key_id, grams)
    SELECT u, i, k, g::bigint[] FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[]) AS t (u, i, k, g)
    ON CONFLICT (user_address, id) DO NOTHING
    RETURNING user_address
)
SELECT DISTINCT m.user_address FROM made AS m
JOIN user_counters AS c ON c.user_address = m.user_address AND c.opened_at IS NOT NULL

-- save_rows --
-- The texts that these transactions had before come back: nobody may have them any more.
WITH wanted AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) AS w (user_address, transaction_id, text_id)
), old AS (
    SELECT r.user_address, r.transaction_id, r.text_id FROM wanted AS w
    JOIN search_rows AS r ON r.user_address = w.user_address AND r.transaction_id = w.transaction_id
    WHERE r.text_id IS DISTINCT FROM w.text_id
), gone AS (
    DELETE FROM search_rows AS r USING wanted AS w
    WHERE r.user_address = w.user_address AND r.transaction_id = w.transaction_id AND w.text_id IS NULL
), saved AS (
    INSERT INTO search_rows SELECT * FROM wanted WHERE text_id IS NOT NULL
    ON CONFLICT (user_address, transaction_id) DO UPDATE SET text_id = excluded.text_id
        WHERE search_rows.text_id <> excluded.text_id
)
SELECT DISTINCT user_address, text_id FROM old

-- forget_texts --
DELETE FROM search_texts AS t USING unnest($1::text[], $2::bigint[]) AS o (user_address, id)
WHERE t.user_address = o.user_address AND t.id = o.id
    AND NOT EXISTS (SELECT FROM search_rows AS r WHERE r.user_address = t.user_address AND r.text_id = t.id)

-- known_words --
-- Which of these words some text of the user has whole.
SELECT a.word FROM (
    SELECT word, array_agg(gram) AS grams FROM unnest($2::int[], $3::bigint[]) AS w (word, gram) GROUP BY word
) AS a
WHERE EXISTS (SELECT FROM search_texts AS s WHERE s.user_address = $1 AND s.grams @> a.grams)

-- texts_with --
SELECT id FROM search_texts WHERE user_address = $1 AND grams @> $2::bigint[]

-- texts_like --
-- Those that have all of $2, and at least half of the parts of each other word.
SELECT s.id FROM search_texts AS s
WHERE s.user_address = $1 AND s.grams @> $2::bigint[] AND s.grams && $4::bigint[] AND NOT EXISTS (
    SELECT FROM unnest($3::int[], $4::bigint[]) AS w (word, gram)
    GROUP BY word HAVING 2 * count(*) FILTER (WHERE w.gram = ANY (s.grams)) < count(*)
)

-- transactions_of --
SELECT transaction_id FROM search_rows WHERE user_address = $1 AND text_id = ANY ($2::bigint[]) LIMIT $3

-- unread --
-- Texts without a vector of this model, each with a transaction that says it.
SELECT t.id, t.key_id, r.transaction_id FROM search_texts AS t
CROSS JOIN LATERAL (
    SELECT transaction_id FROM search_rows AS r WHERE r.user_address = t.user_address AND r.text_id = t.id LIMIT 1
) AS r
WHERE t.user_address = $1 AND t.model IS DISTINCT FROM $2 AND t.id > $3
ORDER BY t.id LIMIT $4

-- is_unread --
SELECT EXISTS (SELECT FROM search_texts WHERE user_address = $1 AND model IS DISTINCT FROM $2)

-- keep_vectors --
UPDATE search_texts AS t SET embedding = v.embedding::vector, model = $2, dimension = vector_dims(v.embedding::vector),
                             updated_at = now()
FROM unnest($3::bigint[], $4::text[]) AS v (id, embedding)
WHERE t.user_address = $1 AND t.id = v.id

-- nearest --
-- Exact, over one user's texts: there are few thousand of them, and an index over all users would look at others' first.
SELECT id, embedding <=> $4::text::vector AS distance FROM search_texts
WHERE user_address = $1 AND model = $2 AND key_id = $3
ORDER BY distance, id LIMIT $5

-- rows_of --
-- Transactions of texts, in the order in which these are given.
SELECT r.transaction_id, r.text_id FROM unnest($2::bigint[]) WITH ORDINALITY AS t (id, place)
JOIN search_rows AS r ON r.user_address = $1 AND r.text_id = t.id
ORDER BY t.place, r.transaction_id LIMIT $3
