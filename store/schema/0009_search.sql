-- Search: what the rows of the ledger say, by word and by meaning. Before deploy: nothing here is read by older code.
-- Made by jobs after the commit and made anew at any time: the truth is in the ledger, memos, contacts, categories.
-- Needs pgvector; where the database's owner may not create it, its administrator does before.
CREATE EXTENSION IF NOT EXISTS vector;

-- One row per user and distinct text (memo, payee's label, buckets, category): rows that say the same share it. Memos
-- are sealed at rest, so the words are not here: `grams` are keyed hashes (store/blind.py) of their parts, whose key is
-- made of a seal key (key_id) and the user, so that one user's hashes tell nothing of another's.
-- embedding: null until a job made it; `model` and `dimension` say whose it is, only those of one model are compared.
-- It is turned by a rotation that only the key gives: distances stay, what the text was does not show.
CREATE TABLE search_texts (
    user_address address NOT NULL,
    id           bigint NOT NULL,
    key_id       text NOT NULL,
    grams        bigint[] NOT NULL,
    model        text,
    dimension    integer,
    embedding    vector,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_address, id),
    CHECK ((embedding IS NULL) = (model IS NULL) AND vector_dims(embedding) = dimension)
);
CREATE INDEX search_texts_grams ON search_texts USING gin (grams);
CREATE INDEX search_texts_plain ON search_texts (user_address) WHERE embedding IS NULL;

-- Which text a transaction has. It belongs to the transaction id; whether that counts, the ledger says.
CREATE TABLE search_rows (
    user_address   address NOT NULL,
    transaction_id text NOT NULL,
    text_id        bigint NOT NULL,
    PRIMARY KEY (user_address, transaction_id)
);
CREATE INDEX search_rows_text ON search_rows (user_address, text_id);
