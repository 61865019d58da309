-- drop_events --
DROP TABLE IF EXISTS transaction_events_fresh SYNC

-- drop_hours --
DROP TABLE IF EXISTS hourly_spending_fresh SYNC

-- make_events --
CREATE TABLE IF NOT EXISTS transaction_events_fresh AS transaction_events

-- make_hours --
CREATE TABLE IF NOT EXISTS hourly_spending_fresh AS hourly_spending

-- exists --
EXISTS TABLE transaction_events_fresh

-- months --
-- Months that either table has, oldest first.
SELECT DISTINCT toUInt32(partition_id) AS month FROM system.parts
WHERE database = currentDatabase() AND active AND table IN ('transaction_events', 'transaction_events_fresh')
ORDER BY month

-- has_events --
SELECT count() > 0 FROM system.parts
WHERE database = currentDatabase() AND active AND table = 'transaction_events_fresh' AND partition_id = {month:String}

-- keep_others --
-- Only one chain is filled anew: the rows of all others are taken over as they are.
INSERT INTO transaction_events_fresh SELECT * FROM transaction_events
WHERE toYYYYMM(timestamp) = {month:UInt32} AND chain_id != {chain:UInt64}

-- place_events --
ALTER TABLE transaction_events REPLACE PARTITION ID {month:String} FROM transaction_events_fresh

-- drop_month --
ALTER TABLE transaction_events DROP PARTITION ID {month:String}

-- clear_hours --
TRUNCATE TABLE hourly_spending_fresh SYNC

-- fold_hours --
-- What the view would have made of these rows, had each of them come once.
INSERT INTO hourly_spending_fresh
SELECT user_id, chain_id, category_id, toStartOfHour(timestamp) AS hour,
       sumState(amount_usd) AS total_spent, countState() AS transaction_count,
       avgState(amount_usd) AS avg_amount, uniqExactState(transaction_id) AS uniq_tx
FROM transaction_events FINAL
WHERE toYYYYMM(timestamp) = {month:UInt32} AND transaction_type = 'spend' AND role = 'owner'
GROUP BY user_id, chain_id, category_id, hour

-- place_hours --
ALTER TABLE hourly_spending REPLACE PARTITION ID {month:String} FROM hourly_spending_fresh

-- drop_hours_month --
ALTER TABLE hourly_spending DROP PARTITION ID {month:String}

-- has_hours --
SELECT count() > 0 FROM hourly_spending_fresh
