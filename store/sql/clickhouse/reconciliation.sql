-- first --
-- The oldest month there is; nothing when there is none.
SELECT min(toUInt32(partition_id)) FROM system.parts
WHERE database = currentDatabase() AND active AND table = 'transaction_events' HAVING count() > 0

-- figures --
SELECT right(user_id, 2) AS users, count() AS rows, toString(sum(amount_raw)) AS amounts,
       ifNull(sum(toDecimal256(amount_usd, 18)), 0) AS usd, countIf(isNull(amount_usd)) AS unpriced,
       toString(sum(toUInt128(version))) AS versions,
       toString(sum(toUInt64(reinterpretAsUInt32(reverse(unhex(right(category_id, 8))))))) AS categories
FROM transaction_events FINAL
WHERE chain_id = {chain:UInt64} AND toYYYYMM(timestamp) = {month:UInt32} AND NOT has({unsettled:Array(String)}, user_id)
GROUP BY users
SETTINGS do_not_merge_across_partitions_select_final = 1
