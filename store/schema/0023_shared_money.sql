-- Buckets that somebody else may spend from, or once could, and who spent what from them. Figures are kept beside each
-- spend, so that telling them never reads a history; they follow from the ledger alone. Before deploy.
ALTER TABLE buckets ADD COLUMN shared boolean NOT NULL DEFAULT false;

-- spender is '' where the chain does not say who sent it. usd is null once anything in it had no price. period_*: of the
-- bucket's rolling period that began at period_start; of no use in any other. Sums may outgrow what one amount can be.
CREATE TABLE bucket_spending (
    chain_id      bigint NOT NULL,
    bucket_id     text NOT NULL,
    spender       text NOT NULL,
    token         address NOT NULL,
    amount        numeric NOT NULL,
    usd           numeric,
    count         bigint NOT NULL,
    last_at       timestamptz NOT NULL,
    period_start  timestamptz,
    period_amount numeric NOT NULL,
    period_usd    numeric,
    PRIMARY KEY (bucket_id, spender, token)
) WITH (fillfactor = 80);

ALTER TABLE preimages DROP CONSTRAINT preimages_relation_check;
ALTER TABLE preimages ADD CONSTRAINT preimages_relation_check CHECK (
    relation IN ('buckets', 'balances', 'wallets', 'wallet_scopes', 'positions', 'accounts', 'goals', 'goal_milestones',
                 'bucket_spending')
) NOT VALID;

UPDATE buckets AS b SET shared = true
WHERE delegates <> '{}' OR bucket_id IN (
    SELECT bucket_id FROM transactions
    WHERE canonical AND role = 'owner' AND type = 'spend' AND spender <> user_address
);

INSERT INTO bucket_spending (chain_id, bucket_id, spender, token, amount, usd, count, last_at, period_start,
                             period_amount, period_usd)
SELECT t.chain_id, t.bucket_id, coalesce(t.spender, ''), t.token, sum(t.amount),
       CASE WHEN count(t.usd) = count(*) THEN sum(t.usd) END, count(*), max(t.block_time), b.period_start,
       coalesce(sum(t.amount) FILTER (WHERE t.block_time >= b.period_start), 0),
       CASE WHEN count(t.usd) FILTER (WHERE t.block_time >= b.period_start)
               = count(*) FILTER (WHERE t.block_time >= b.period_start)
           THEN coalesce(sum(t.usd) FILTER (WHERE t.block_time >= b.period_start), 0) END
FROM buckets AS b JOIN transactions AS t ON t.user_address = b.user_address AND t.bucket_id = b.bucket_id
WHERE b.shared AND t.canonical AND t.role = 'owner' AND t.type = 'spend'
GROUP BY t.chain_id, t.bucket_id, coalesce(t.spender, ''), t.token, b.period_start;

-- Spends of one bucket, newest first: a member's page must not read all that the owner ever did.
CREATE INDEX transactions_bucket ON transactions (hashtextextended(bucket_id, 0), block_time DESC, id DESC)
WHERE canonical AND role = 'owner' AND type = 'spend';
