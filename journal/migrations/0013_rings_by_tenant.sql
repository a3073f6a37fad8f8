-- Which at-rest keys a tenant's data may exist under, for tenants that have, or once had, a ring of their own.
-- Of all others record.at_rest_keys says it.

CREATE TABLE record.tenant_at_rest_keys (
    tenant_id uuid NOT NULL,
    key_id bytea NOT NULL CHECK (octet_length(key_id) = 8),
    first_seen_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, key_id)
);

SELECT record.keep('tenant_at_rest_keys');
