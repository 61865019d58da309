-- positions_of --
-- Every position of these users, closed ones too, on one chain or (null) on all.
SELECT user_address, chain_id, position_id, kind, contract, lock_id::text, vault, protocol_name, asset_address,
       asset_symbol, shares::text, principal::text, realized::text, fees::text, current_value::text, value_usd,
       yield_usd, apy, apy_window_s, as_of_block, last_updated_at, opened_block, opened_at, unlock_at, label
FROM investment_positions WHERE user_address = ANY ($2::text[]) AND ($1::bigint IS NULL OR chain_id = $1)
ORDER BY user_address, position_id

-- open_positions --
-- Positions of a chain whose value moves by itself.
SELECT user_address, chain_id, position_id, kind, contract, lock_id::text, vault, protocol_name, asset_address,
       asset_symbol, shares::text, principal::text, realized::text, fees::text, current_value::text, value_usd,
       yield_usd, apy, apy_window_s, as_of_block, last_updated_at, opened_block, opened_at, unlock_at, label
FROM investment_positions WHERE chain_id = $1 AND shares > 0
ORDER BY user_address, position_id

-- open_sources --
-- What has to be read for them: each vault once, each lock.
SELECT kind, contract, lock_id::text FROM investment_positions WHERE chain_id = $1 AND shares > 0
GROUP BY kind, contract, lock_id ORDER BY kind, contract, lock_id

-- save_positions --
INSERT INTO investment_positions (user_address, chain_id, position_id, kind, contract, lock_id, vault, protocol_name,
                                  asset_address, asset_symbol, shares, principal, realized, fees, entry_price,
                                  current_value, yield_earned, value_usd, yield_usd, apy, apy_window_s, as_of_block,
                                  last_updated_at, opened_block, opened_at, unlock_at, label)
SELECT user_address, chain_id, position_id, kind, contract, lock_id::numeric, vault, protocol_name, asset_address,
       asset_symbol, shares::numeric, principal::numeric, realized::numeric, fees::numeric, entry_price::numeric,
       current_value::numeric, yield_earned::numeric, value_usd::numeric, yield_usd::numeric, apy::numeric,
       apy_window_s, as_of_block, last_updated_at, opened_block, opened_at, unlock_at, label
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[],
            $17::text[], $18::text[], $19::text[], $20::text[], $21::bigint[], $22::bigint[], $23::timestamptz[],
            $24::bigint[], $25::timestamptz[], $26::timestamptz[], $27::text[])
     AS p (user_address, chain_id, position_id, kind, contract, lock_id, vault, protocol_name, asset_address,
           asset_symbol, shares, principal, realized, fees, entry_price, current_value, yield_earned, value_usd,
           yield_usd, apy, apy_window_s, as_of_block, last_updated_at, opened_block, opened_at, unlock_at, label)
ON CONFLICT (user_address, position_id) DO UPDATE SET
    shares = excluded.shares, principal = excluded.principal, realized = excluded.realized, fees = excluded.fees,
    entry_price = excluded.entry_price, current_value = excluded.current_value, yield_earned = excluded.yield_earned,
    value_usd = excluded.value_usd, yield_usd = excluded.yield_usd, apy = excluded.apy,
    apy_window_s = excluded.apy_window_s, as_of_block = excluded.as_of_block,
    last_updated_at = excluded.last_updated_at, opened_block = excluded.opened_block, opened_at = excluded.opened_at,
    unlock_at = excluded.unlock_at, label = excluded.label, protocol_name = excluded.protocol_name,
    asset_address = excluded.asset_address, asset_symbol = excluded.asset_symbol, vault = excluded.vault,
    updated_at = now()

-- keep_positions --
INSERT INTO preimages (chain_id, block_number, block_hash, relation, key, was)
SELECT $1, $2, $3, 'positions', concat_ws('|', k.user_address, k.position_id), to_jsonb(p)
FROM unnest($4::text[], $5::text[]) AS k (user_address, position_id)
LEFT JOIN investment_positions AS p ON p.user_address = k.user_address AND p.position_id = k.position_id
ON CONFLICT DO NOTHING

-- restore_gone --
DELETE FROM investment_positions AS i USING preimages AS p
WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'positions'
    AND i.user_address = split_part(p.key, '|', 1) AND i.position_id = split_part(p.key, '|', 2)

-- restore_positions --
INSERT INTO investment_positions
SELECT r.* FROM preimages AS p, jsonb_populate_record(NULL::investment_positions, p.was) AS r
WHERE p.chain_id = $1 AND p.block_hash = $2 AND p.relation = 'positions' AND p.was IS NOT NULL

-- forget_points --
DELETE FROM position_points WHERE chain_id = $1 AND block_hash = $2

-- forget_prices --
DELETE FROM share_prices WHERE chain_id = $1 AND block_hash = $2

-- record_points --
INSERT INTO position_points (user_address, position_id, chain_id, block_number, block_hash, block_time, shares,
                             principal, realized)
SELECT user_address, position_id, $1, $2, $3, $4, shares::numeric, principal::numeric, realized::numeric
FROM unnest($5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
     AS p (user_address, position_id, shares, principal, realized)
ON CONFLICT (user_address, position_id, block_number) DO UPDATE SET
    block_hash = excluded.block_hash, block_time = excluded.block_time, shares = excluded.shares,
    principal = excluded.principal, realized = excluded.realized

-- record_prices --
-- All of those that a position changed at; of the others one in so much time ($8, seconds) is enough.
INSERT INTO share_prices (chain_id, source, block_number, block_hash, block_time, assets, shares)
SELECT $1, source, $2, $3, $4, assets::numeric, shares::numeric
FROM unnest($5::text[], $6::text[], $7::text[], $9::boolean[]) AS p (source, assets, shares, wanted)
WHERE wanted OR NOT EXISTS (
    SELECT FROM share_prices AS s WHERE s.chain_id = $1 AND s.source = p.source
        AND s.block_time > $4::timestamptz - make_interval(secs => $8::int)
)
ON CONFLICT (chain_id, source, block_number) DO NOTHING

-- newest_prices --
SELECT s.source, p.block_time, p.assets::text, p.shares::text FROM unnest($2::text[]) AS s (source)
CROSS JOIN LATERAL (
    SELECT block_time, assets, shares FROM share_prices
    WHERE chain_id = $1 AND source = s.source ORDER BY block_number DESC LIMIT 1
) AS p

-- base_prices --
-- For each source and time: the newest price at or before it, else the first after it.
SELECT k.source, k.since, p.block_time, p.assets::text, p.shares::text
FROM unnest($2::text[], $3::timestamptz[]) AS k (source, since)
CROSS JOIN LATERAL (
    (SELECT block_time, assets, shares, 0 AS rank FROM share_prices
     WHERE chain_id = $1 AND source = k.source AND block_time <= k.since ORDER BY block_time DESC, block_number DESC
     LIMIT 1)
    UNION ALL
    (SELECT block_time, assets, shares, 1 FROM share_prices
     WHERE chain_id = $1 AND source = k.source AND block_time > k.since ORDER BY block_time, block_number LIMIT 1)
    ORDER BY rank LIMIT 1
) AS p

-- values_at_each --
-- Each position of these users as it stood at a time, with the newest price of its shares at or before it.
SELECT k.user_address, k.at, i.position_id, i.chain_id, i.kind, i.asset_address, t.shares::text, t.principal::text,
       t.realized::text, s.assets::text AS price_assets, s.shares::text AS price_shares, s.block_time AS priced_at
FROM unnest($1::text[], $2::timestamptz[]) AS k (user_address, at)
JOIN investment_positions AS i ON i.user_address = k.user_address
CROSS JOIN LATERAL (
    SELECT shares, principal, realized FROM position_points
    WHERE user_address = k.user_address AND position_id = i.position_id AND block_time <= k.at
    ORDER BY block_number DESC LIMIT 1
) AS t
LEFT JOIN LATERAL (
    SELECT assets, shares, block_time FROM share_prices
    WHERE chain_id = i.chain_id AND source = CASE i.kind WHEN 'vault' THEN i.contract ELSE i.position_id END
        AND block_time <= k.at
    ORDER BY block_time DESC, block_number DESC LIMIT 1
) AS s ON true
ORDER BY k.user_address, k.at, i.position_id

-- follow_vaults --
-- One that is new has every own address opened again, in the same breath.
WITH fresh AS (
    INSERT INTO followed_vaults (chain_id, vault) SELECT $1, v FROM unnest($2::text[]) AS v
    ON CONFLICT DO NOTHING RETURNING vault
)
UPDATE wallet_scopes SET opened_block = NULL
WHERE chain_id = $1 AND opened_block IS NOT NULL AND EXISTS (SELECT FROM fresh)
