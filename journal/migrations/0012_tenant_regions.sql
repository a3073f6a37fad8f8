-- Where a tenant's data may be: a tenant is pinned to regions, and a node serves it in none but these.
--
-- Numbered like every other change of what is demanded for a tenant. The newest row counts; no regions: pinned
-- nowhere any more, so free.

CREATE TABLE record.tenant_regions (
    change_number bigint PRIMARY KEY REFERENCES record.policy_changes,
    tenant_id uuid NOT NULL,
    regions text[] COLLATE "C" NOT NULL
);
CREATE INDEX tenant_regions_newest ON record.tenant_regions (tenant_id, change_number DESC);
SELECT record.keep('tenant_regions');
