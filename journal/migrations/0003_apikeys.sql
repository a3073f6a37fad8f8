-- API keys with a role instead of flags, an end, and a rate limit of their own.
--
-- Only adds: a node of the version before reads such a key as one without permissions, and goes on reading
-- the old ones.

ALTER TABLE record.api_keys
    ADD COLUMN role text COLLATE "C",
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN rate_limit_per_minute integer CHECK (rate_limit_per_minute BETWEEN 1 AND 1000000);

CREATE INDEX api_keys_agent ON record.api_keys (tenant_id, agent_id, created_at DESC, id DESC)
    WHERE agent_id IS NOT NULL;
