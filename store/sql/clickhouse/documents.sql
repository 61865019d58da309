-- parquet --
-- A user's transactions as columns; what was taken back is not there. Names are those of the dictionary
-- (handlers/rules/columns.py). Parquet has no integer of 256 bits: the raw amount is text there.
SELECT transaction_id AS id, chain_id AS chainId, toString(transaction_hash) AS txHash, log_index AS logIndex,
       block_number AS blockNumber, block_hash AS blockHash, timestamp AS blockTime, toString(type) AS type,
       toString(account_type) AS accountType, toString(direction) AS direction, toString(role) AS role,
       toString(token_address) AS token, JSONExtract(metadata, 'symbol', 'Nullable(String)') AS symbol,
       token_decimals AS decimals, toString(amount_raw) AS amountRaw, amount AS amount, amount_usd AS usd,
       toString(fee_wei) AS feeWei, JSONExtract(metadata, 'counterparty', 'Nullable(String)') AS counterparty,
       JSONExtract(metadata, 'spender', 'Nullable(String)') AS spender,
       JSONExtract(metadata, 'wallet', 'Nullable(String)') AS wallet,
       JSONExtract(metadata, 'bucketId', 'Nullable(String)') AS bucketId,
       JSONExtract(metadata, 'bucket', 'Nullable(String)') AS bucket,
       JSONExtract(metadata, 'toBucketId', 'Nullable(String)') AS toBucketId,
       JSONExtract(metadata, 'toBucket', 'Nullable(String)') AS toBucket,
       nullIf(toString(category_id), '') AS categoryId
FROM transaction_events FINAL
WHERE user_id = %(user)s AND is_deleted = 0 AND has(%(chains)s, chain_id)
    AND toUnixTimestamp64Milli(timestamp) >= %(since)s AND toUnixTimestamp64Milli(timestamp) < %(until)s
    AND (%(any_type)s OR has(%(types)s, toString(type)))
    AND (%(account)s = '' OR toString(account_type) = %(account)s)
    AND (%(bucket)s = '' OR %(bucket)s IN (bucketId, toBucketId, bucket, toBucket))
    AND (%(token)s = '' OR token_address = %(token)s)
    AND (%(category)s = '' OR category_id = %(category)s)
    AND (%(min)s = '' OR amount_usd >= toDecimal256OrNull(%(min)s, 18))
    AND (%(max)s = '' OR amount_usd <= toDecimal256OrNull(%(max)s, 18))
    AND (%(any_id)s OR has(%(ids)s, transaction_id))
ORDER BY timestamp DESC, transaction_id DESC
FORMAT Parquet
