-- trends --
-- Own spends alone; a transfer that the user gave a category counts for budgets, not here. Sums are Decimal256: no history of 18-place amounts reaches its end. Periods are instants (s), ascending.
SELECT roundDown(intDiv(toUnixTimestamp64Milli(timestamp), 1000), {starts:Array(Int64)}) AS period, category_id,
       ifNull(sum(toDecimal256(amount_usd, 18)), 0) AS spent, count() AS counted, countIf(isNull(amount_usd)) AS unpriced
FROM transaction_events FINAL
PREWHERE user_id = {user:String} AND timestamp >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    AND timestamp < fromUnixTimestamp64Milli({until:Int64}, 'UTC')
WHERE role = 'owner' AND type = 'spend'
    AND ({all:Bool} OR has({categories:Array(String)}, category_id))
GROUP BY period, category_id
ORDER BY period DESC, category_id
LIMIT {limit:UInt32}
SETTINGS do_not_merge_across_partitions_select_final = 1

-- flows --
-- Deposits, and what counts for budgets (budgets.sql, figures) by category, in spans given by their beginnings.
SELECT roundDown(intDiv(toUnixTimestamp64Milli(timestamp), 1000), {starts:Array(Int64)}) AS span,
       type = 'deposit' AS is_deposit, if(is_deposit, '', category_id) AS category,
       ifNull(sum(toDecimal256(amount_usd, 18)), 0) AS usd, count() AS counted, countIf(isNull(amount_usd)) AS unpriced
FROM transaction_events FINAL
PREWHERE user_id = {user:String} AND timestamp >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    AND timestamp < fromUnixTimestamp64Milli({until:Int64}, 'UTC')
WHERE role = 'owner'
    AND (type = 'spend' OR (type = 'deposit' AND direction = 'in')
        OR (type = 'transfer' AND direction = 'out' AND category_id != '' AND recipient_address NOT IN ('', user_id)))
GROUP BY span, is_deposit, category
ORDER BY span, is_deposit, category
SETTINGS do_not_merge_across_partitions_select_final = 1
