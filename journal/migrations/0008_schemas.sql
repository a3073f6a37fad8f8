-- What tenants demand of their events: JSON Schemas by event type, allowed entity types, the mode of checking.
--
-- Every change has a number from one counter, whose row lock is held until COMMIT: changes become visible in
-- the order of their numbers, so whoever asks for those after the last one seen misses none. A schema's text
-- never changes and its version is never used again; its status is its newest row.

CREATE TABLE record.policy_change_counters (
    single_row boolean PRIMARY KEY DEFAULT true CHECK (single_row),
    last_number bigint NOT NULL
);
INSERT INTO record.policy_change_counters (last_number) VALUES (0);

CREATE TABLE record.policy_changes (
    change_number bigint PRIMARY KEY,
    changed_at timestamptz NOT NULL,
    tenant_id uuid NOT NULL
);
CREATE INDEX policy_changes_of_tenant ON record.policy_changes (tenant_id, change_number);

CREATE TABLE record.event_schemas (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    version integer NOT NULL CHECK (version >= 1),
    event_type text COLLATE "C" NOT NULL CHECK (octet_length(event_type) BETWEEN 1 AND 256),
    compatibility text COLLATE "C" NOT NULL CHECK (compatibility IN ('backward', 'forward', 'full', 'none')),
    schema_json text COLLATE "C" NOT NULL CHECK (octet_length(schema_json) <= 102400),
    description text COLLATE "C",
    created_by text COLLATE "C" NOT NULL,
    UNIQUE (tenant_id, event_type, version)
);

CREATE TABLE record.event_schema_statuses (
    change_number bigint PRIMARY KEY REFERENCES record.policy_changes,
    schema_id uuid NOT NULL REFERENCES record.event_schemas,
    status text COLLATE "C" NOT NULL CHECK (status IN ('active', 'deprecated', 'archived'))
);
CREATE INDEX event_schema_statuses_newest ON record.event_schema_statuses (schema_id, change_number DESC);

CREATE TABLE record.tenant_policies (
    change_number bigint PRIMARY KEY REFERENCES record.policy_changes,
    tenant_id uuid NOT NULL,
    schema_mode text COLLATE "C" CHECK (schema_mode IN ('disabled', 'warn', 'enforce', 'required')),
    entity_types text[] COLLATE "C"
);
CREATE INDEX tenant_policies_newest ON record.tenant_policies (tenant_id, change_number DESC);

SELECT record.keep('policy_change_counters', true);
SELECT record.keep('policy_changes');
SELECT record.keep('event_schemas');
SELECT record.keep('event_schema_statuses');
SELECT record.keep('tenant_policies');
