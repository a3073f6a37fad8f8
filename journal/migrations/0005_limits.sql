-- Rate limits that nodes share (RATE_LIMIT_SHARED). In "work": losing all of it loses no fact, every bucket is
-- full then. Unlogged: a crash of the server empties it, and no write of it waits for the disk.

CREATE UNLOGGED TABLE work.rate_buckets (
    bucket bytea PRIMARY KEY,  -- the credential's id and the class
    per_minute bigint NOT NULL,
    burst bigint NOT NULL,
    units bigint NOT NULL,     -- of 1/60,000,000 token; below 0: a debt
    at_us bigint NOT NULL      -- when that was true, in microseconds since 1970
) WITH (fillfactor = 50);      -- rows change all the time: room for their next version on the same page
-- The default privileges of "work" are those of whoever made the schema; another role may be migrating now.
GRANT SELECT, INSERT, UPDATE, DELETE ON work.rate_buckets TO sequencer_app;
GRANT SELECT ON work.rate_buckets TO sequencer_reader;
