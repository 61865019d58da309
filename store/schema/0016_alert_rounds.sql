-- How often spending fell far enough below an edge to alert again in the same period: a later crossing is a new effect.
ALTER TABLE alert_edges ADD COLUMN round smallint NOT NULL DEFAULT 1;
