-- emails_to_reseal --
-- What another key than the newest (its header: $1) sealed, in the order of its key, beyond the last one seen.
SELECT address AS user_address, email AS sealed FROM users
WHERE address > $3 AND email IS NOT NULL AND substring(email FROM 1 FOR length($1::bytea)) <> $1
ORDER BY address LIMIT $2

-- reseal_emails --
-- Only what is still what was read: a change meanwhile is sealed by the newest key already.
WITH gone AS (
    UPDATE users AS u SET email = w.resealed
    FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS w (address, sealed, resealed)
    WHERE u.address = w.address AND u.email = w.sealed RETURNING 1
)
SELECT count(*) FROM gone

-- memos_to_reseal --
SELECT user_address, chain_id, tx_hash, coalesce(n, -1) AS n, memo AS sealed FROM memos
WHERE (user_address, chain_id, tx_hash, coalesce(n, -1)) > ($3::text, $4::bigint, $5::text, $6::integer)
    AND substring(memo FROM 1 FOR length($1::bytea)) <> $1
ORDER BY user_address, chain_id, tx_hash, coalesce(n, -1) LIMIT $2

-- reseal_memos --
WITH gone AS (
    UPDATE memos AS m SET memo = w.resealed
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::integer[], $5::bytea[], $6::bytea[])
        AS w (user_address, chain_id, tx_hash, n, sealed, resealed)
    WHERE m.user_address = w.user_address AND m.chain_id = w.chain_id AND m.tx_hash = w.tx_hash
        AND coalesce(m.n, -1) = w.n AND m.memo = w.sealed
    RETURNING 1
)
SELECT count(*) FROM gone

-- devices_to_reseal --
SELECT user_address, id::text AS id, token AS sealed FROM devices
WHERE (user_address, id::text) > ($3::text, $4::text) AND substring(token FROM 1 FOR length($1::bytea)) <> $1
ORDER BY user_address, id::text LIMIT $2

-- reseal_devices --
WITH gone AS (
    UPDATE devices AS d SET token = w.resealed
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[]) AS w (user_address, id, sealed, resealed)
    WHERE d.id = w.id::uuid AND d.token = w.sealed RETURNING 1
)
SELECT count(*) FROM gone
