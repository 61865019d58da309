-- A user's transactions of one category, read from the index alone: a page of history that is narrowed to a category
-- otherwise reads everything that the user ever categorised. Before deploy.
CREATE INDEX transaction_categories_category ON transaction_categories (user_address, category_id, transaction_id);
