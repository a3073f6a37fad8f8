-- What the sequencer remembers, from the first day on.
--
-- Schema "record" holds facts: rows are added and read, never changed or removed. Only counters, entity
-- versions and epochs are updated in place. Schema "work" holds what may be lost without losing a fact.
-- Roles: sequencer_app writes, sequencer_reader reads, sequencer_admin may seal payloads anew; none of them
-- can log in by itself. Text is compared byte by byte (COLLATE "C"), so that no operating system's idea of
-- sorting is part of an index.

DO $roles$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['sequencer_app', 'sequencer_admin', 'sequencer_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN
                    NULL; -- roles belong to the whole cluster: another database's migration made it meanwhile
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'role % does not exist and % may not create it', wanted, current_user
                        USING ERRCODE = 'insufficient_privilege',
                              HINT = 'migrate as a role with CREATEROLE, or let a superuser CREATE ROLE '
                                  || 'sequencer_app, sequencer_admin and sequencer_reader (NOLOGIN) first';
            END;
        END IF;
    END LOOP;
END
$roles$;

CREATE SCHEMA record;
CREATE SCHEMA work;

CREATE TABLE record.schema_migrations (
    version integer PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    checksum bytea NOT NULL CHECK (octet_length(checksum) = 32),
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Streams.

CREATE TABLE record.ves_sequence_counters (
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    current_sequence bigint NOT NULL CHECK (current_sequence >= 1),
    last_sequenced_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, store_id)
) WITH (fillfactor = 50);

CREATE TABLE record.ves_events (
    sequence_number bigint NOT NULL,
    sequenced_at timestamptz NOT NULL,
    agent_key_id bigint NOT NULL,
    base_version bigint,
    sequencer_key_version integer NOT NULL,
    payload_kind smallint NOT NULL,
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    event_id uuid NOT NULL,
    source_agent_id uuid NOT NULL,
    command_id uuid,
    sequencer_id uuid NOT NULL,
    entity_type text COLLATE "C" NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    created_at text COLLATE "C" NOT NULL, -- exactly as the agent signed it
    payload_plain_hash bytea NOT NULL,
    payload_cipher_hash bytea NOT NULL,
    agent_signature bytea NOT NULL,
    event_signing_hash bytea NOT NULL,
    receipt_hash bytea NOT NULL,
    sequencer_signature bytea NOT NULL,
    payload_sealed bytea NOT NULL,
    PRIMARY KEY (tenant_id, store_id, sequence_number),
    UNIQUE (tenant_id, event_id),
    CONSTRAINT ves_events_numbers CHECK (
        sequence_number >= 1 AND sequencer_key_version >= 1 AND payload_kind IN (0, 1)
        AND agent_key_id BETWEEN 0 AND 4294967295 AND base_version >= 0
    ),
    CONSTRAINT ves_events_names CHECK (
        octet_length(entity_type) <= 128 AND octet_length(entity_id) <= 512
        AND octet_length(event_type) <= 256 AND octet_length(created_at) <= 64
    ),
    CONSTRAINT ves_events_hashes CHECK (
        octet_length(payload_plain_hash) = 32 AND octet_length(payload_cipher_hash) = 32
        AND octet_length(event_signing_hash) = 32 AND octet_length(receipt_hash) = 32
        AND octet_length(agent_signature) = 64 AND octet_length(sequencer_signature) = 64
    )
);
-- A tenant that joined after the last ANALYZE is in nobody's statistics: the planner would take it for empty
-- and look for an event_id by reading all the tenant has. Without statistics it takes every tenant for a
-- sizeable part of the table, and the unique index is always the better way.
ALTER TABLE record.ves_events ALTER COLUMN tenant_id SET STATISTICS 0, ALTER COLUMN store_id SET STATISTICS 0;
-- Ciphertext does not compress; uncompressed it can be read in slices.
ALTER TABLE record.ves_events ALTER COLUMN payload_sealed SET STORAGE EXTERNAL;
CREATE INDEX ves_events_entity
    ON record.ves_events (tenant_id, store_id, entity_type, entity_id, sequence_number);

CREATE TABLE record.ves_command_dedupe (
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    command_id uuid NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, store_id, command_id)
);

CREATE TABLE record.entity_versions (
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    version bigint NOT NULL,
    previous_version bigint NOT NULL, -- before the last move: what the compare-and-set believed
    entity_type text COLLATE "C" NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_id, store_id, entity_type, entity_id),
    CHECK (version > previous_version AND previous_version >= 0)
) WITH (fillfactor = 80);

-- Commitments.

CREATE TABLE record.ves_commitment_counters (
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    committed_through bigint NOT NULL CHECK (committed_through >= 1),
    state_root bytea NOT NULL CHECK (octet_length(state_root) = 32),
    PRIMARY KEY (tenant_id, store_id)
) WITH (fillfactor = 50);

CREATE TABLE record.ves_commitments (
    batch_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    sequence_start bigint NOT NULL,
    sequence_end bigint NOT NULL,
    committed_at timestamptz NOT NULL,
    ves_version integer NOT NULL,
    tree_depth integer NOT NULL,
    leaf_count integer NOT NULL,
    padded_leaf_count integer NOT NULL,
    merkle_root bytea NOT NULL CHECK (octet_length(merkle_root) = 32),
    prev_state_root bytea NOT NULL CHECK (octet_length(prev_state_root) = 32),
    new_state_root bytea NOT NULL CHECK (octet_length(new_state_root) = 32),
    levels bytea NOT NULL, -- every Merkle level, padded leaves first, root last
    UNIQUE (tenant_id, store_id, sequence_start),
    CHECK (sequence_start >= 1 AND sequence_end >= sequence_start),
    CHECK (leaf_count = sequence_end - sequence_start + 1 AND leaf_count <= 65536),
    CHECK (tree_depth BETWEEN 0 AND 16 AND padded_leaf_count = 1 << tree_depth),
    CHECK (padded_leaf_count >= leaf_count),
    CHECK (octet_length(levels) = 32 * (2 * padded_leaf_count - 1))
);
-- A proof reads single nodes out of up to 4 MiB.
ALTER TABLE record.ves_commitments ALTER COLUMN levels SET STORAGE EXTERNAL;

-- Agent keys.

CREATE TABLE record.tenant_epochs (
    tenant_id uuid PRIMARY KEY,
    key_epoch bigint NOT NULL,
    credential_epoch bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE record.agent_public_keys ( -- whose a public key is, over all tenants
    public_key bytea PRIMARY KEY CHECK (octet_length(public_key) = 32),
    tenant_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    UNIQUE (public_key, tenant_id, agent_id)
);

CREATE TABLE record.agent_keys (
    tenant_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    key_id bigint NOT NULL CHECK (key_id BETWEEN 0 AND 4294967295),
    key_algorithm smallint NOT NULL,
    proof_of_possession smallint,
    valid_from timestamptz,
    valid_to timestamptz,
    registered_at timestamptz NOT NULL,
    public_key bytea NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, key_id),
    FOREIGN KEY (public_key, tenant_id, agent_id)
        REFERENCES record.agent_public_keys (public_key, tenant_id, agent_id),
    CHECK (valid_from <= valid_to)
);

CREATE TABLE record.agent_key_revocations (
    tenant_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    key_id bigint NOT NULL,
    revoked_at timestamptz NOT NULL,
    reason text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, key_id),
    FOREIGN KEY (tenant_id, agent_id, key_id) REFERENCES record.agent_keys
);

-- Credentials.

CREATE TABLE record.api_keys (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    agent_id uuid,
    created_at timestamptz NOT NULL,
    key_hash bytea NOT NULL UNIQUE CHECK (octet_length(key_hash) = 32),
    prefix text COLLATE "C" NOT NULL,
    store_ids uuid[],
    permissions text[] NOT NULL,
    name text COLLATE "C"
);
CREATE INDEX api_keys_tenant ON record.api_keys (tenant_id, id);

-- One row. Its lock makes revocations visible in the order of their numbers.
CREATE TABLE record.api_key_revocation_counters (
    single_row boolean PRIMARY KEY DEFAULT true CHECK (single_row),
    last_number bigint NOT NULL
);
INSERT INTO record.api_key_revocation_counters (last_number) VALUES (0);

CREATE TABLE record.api_key_revocations (
    revocation_number bigint PRIMARY KEY,
    revoked_at timestamptz NOT NULL,
    api_key_id uuid NOT NULL UNIQUE REFERENCES record.api_keys
);

-- Keys of our own.

CREATE TABLE record.receipt_keys (
    sequencer_id uuid NOT NULL,
    key_version integer NOT NULL CHECK (key_version >= 1),
    created_at timestamptz NOT NULL,
    public_key bytea NOT NULL CHECK (octet_length(public_key) = 32),
    previous_signature bytea CHECK (octet_length(previous_signature) = 64),
    PRIMARY KEY (sequencer_id, key_version)
);

CREATE TABLE record.at_rest_keys (
    key_id bytea PRIMARY KEY CHECK (octet_length(key_id) = 8),
    first_seen_at timestamptz NOT NULL
);

-- Audit: one hash chain per node.

CREATE TABLE record.audit_counters (
    node_id uuid PRIMARY KEY,
    last_number bigint NOT NULL,
    last_hash bytea NOT NULL CHECK (octet_length(last_hash) = 32)
) WITH (fillfactor = 50);

CREATE TABLE record.audit_log (
    node_id uuid NOT NULL,
    entry_number bigint NOT NULL CHECK (entry_number >= 1),
    recorded_at timestamptz NOT NULL,
    tenant_id uuid,
    actor text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    entry text COLLATE "C" NOT NULL, -- canonical JSON of the whole entry: what the hash is of
    prev_hash bytea NOT NULL CHECK (octet_length(prev_hash) = 32),
    entry_hash bytea NOT NULL CHECK (octet_length(entry_hash) = 32),
    PRIMARY KEY (node_id, entry_number)
);
CREATE INDEX audit_log_tenant ON record.audit_log (tenant_id, recorded_at);

-- Append only.

CREATE FUNCTION record.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only: % is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

-- Explicit members of sequencer_admin only: being superuser is no membership.
CREATE FUNCTION record.refuse_change_but_sealing() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    resealed record.ves_events;
BEGIN
    resealed := OLD;
    resealed.payload_sealed := NEW.payload_sealed;
    IF resealed IS NOT DISTINCT FROM NEW AND EXISTS (
        SELECT FROM pg_auth_members m
        JOIN pg_roles granted ON granted.oid = m.roleid
        JOIN pg_roles member ON member.oid = m.member
        WHERE granted.rolname = 'sequencer_admin' AND member.rolname = session_user
    ) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '%.% is append-only: % is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

DO $triggers$
DECLARE
    t text;
    updated_in_place CONSTANT text[] := ARRAY[
        'ves_sequence_counters', 'ves_commitment_counters', 'api_key_revocation_counters', 'audit_counters',
        'entity_versions', 'tenant_epochs'
    ];
BEGIN
    FOR t IN SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = 'record' LOOP
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER append_only_delete BEFORE DELETE ON record.%I '
            'FOR EACH ROW EXECUTE FUNCTION record.refuse_change()', t);
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON record.%I '
            'FOR EACH STATEMENT EXECUTE FUNCTION record.refuse_change()', t);
        EXECUTE pg_catalog.format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER append_only_delete', t);
        EXECUTE pg_catalog.format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER append_only_truncate', t);
        IF t = ANY (updated_in_place) THEN
            EXECUTE pg_catalog.format('GRANT UPDATE ON record.%I TO sequencer_app', t);
        ELSE
            EXECUTE pg_catalog.format(
                'CREATE TRIGGER append_only_update BEFORE UPDATE ON record.%I FOR EACH ROW EXECUTE FUNCTION %s',
                t,
                CASE t WHEN 'ves_events' THEN 'record.refuse_change_but_sealing()'
                       ELSE 'record.refuse_change()' END);
            EXECUTE pg_catalog.format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER append_only_update', t);
        END IF;
        EXECUTE pg_catalog.format('GRANT SELECT ON record.%I TO sequencer_reader, sequencer_admin', t);
        EXECUTE pg_catalog.format('GRANT SELECT ON record.%I TO sequencer_app', t);
        IF t <> 'schema_migrations' THEN
            EXECUTE pg_catalog.format('GRANT INSERT ON record.%I TO sequencer_app', t);
        END IF;
    END LOOP;
END
$triggers$;
GRANT UPDATE (payload_sealed) ON record.ves_events TO sequencer_admin;

GRANT USAGE ON SCHEMA record TO sequencer_app, sequencer_admin, sequencer_reader;
GRANT USAGE ON SCHEMA work TO sequencer_app, sequencer_admin, sequencer_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA work GRANT ALL ON TABLES TO sequencer_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA work GRANT ALL ON SEQUENCES TO sequencer_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA work GRANT SELECT ON TABLES TO sequencer_reader;

-- The compare-and-sets of an append, in the one order that cannot deadlock: epochs, counters in the order
-- given (by store), entity versions by key, command ids. Says what moved, or nothing. Run it after, and not
-- in one statement with, the tenant's key lock; each statement in here has a snapshot of its own.
CREATE FUNCTION record.ves_advance(
    the_tenant uuid,
    believed_key_epoch bigint,
    believed_credential_epoch bigint,
    stores uuid[], believed bigint[], reached bigint[], last_times timestamptz[],
    entity_stores uuid[], entity_types text[], entity_ids text[], versions_believed bigint[], versions_new bigint[],
    command_stores uuid[], command_ids uuid[], command_events uuid[]
) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    rows_hit bigint;
BEGIN
    PERFORM FROM record.tenant_epochs e
        WHERE e.tenant_id = the_tenant
          AND (e.key_epoch, e.credential_epoch) IS DISTINCT FROM (believed_key_epoch, believed_credential_epoch);
    IF FOUND THEN
        RETURN 'a key or a credential';
    END IF;
    IF (believed_key_epoch, believed_credential_epoch) IS DISTINCT FROM (0, 0)
       AND NOT EXISTS (SELECT FROM record.tenant_epochs e WHERE e.tenant_id = the_tenant) THEN
        RETURN 'a key or a credential';
    END IF;

    FOR i IN 1 .. cardinality(stores) LOOP
        IF reached[i] = believed[i] THEN -- nothing new for this stream, but what was decided rests on its head
            PERFORM FROM record.ves_sequence_counters c
                WHERE c.tenant_id = the_tenant AND c.store_id = stores[i] AND c.current_sequence <> believed[i];
            rows_hit := CASE WHEN FOUND THEN 0 ELSE 1 END;
        ELSIF believed[i] = 0 THEN
            INSERT INTO record.ves_sequence_counters (tenant_id, store_id, current_sequence, last_sequenced_at)
                VALUES (the_tenant, stores[i], reached[i], last_times[i]) ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS rows_hit = ROW_COUNT;
        ELSE
            UPDATE record.ves_sequence_counters c
                SET current_sequence = reached[i], last_sequenced_at = last_times[i]
                WHERE c.tenant_id = the_tenant AND c.store_id = stores[i] AND c.current_sequence = believed[i];
            GET DIAGNOSTICS rows_hit = ROW_COUNT;
        END IF;
        IF rows_hit <> 1 THEN
            RETURN 'a stream';
        END IF;
    END LOOP;

    -- INSERT goes through its rows in the order of its SELECT, an UPDATE … FROM need not.
    INSERT INTO record.entity_versions AS v
            (tenant_id, store_id, entity_type, entity_id, previous_version, version)
        SELECT the_tenant, s.store_id, s.entity_type, s.entity_id, s.believed, s.new
        FROM unnest(entity_stores, entity_types, entity_ids, versions_believed, versions_new)
            AS s (store_id, entity_type, entity_id, believed, new)
        -- Rows do not vanish; should one have, it must not come back with a version nobody can vouch for.
        -- (A scalar subquery: EXISTS may be turned into a hash of all the tenant's entities.)
        WHERE s.believed = 0 OR (
            SELECT true FROM record.entity_versions w
            WHERE w.tenant_id = the_tenant AND w.store_id = s.store_id
              AND w.entity_type = s.entity_type COLLATE "C" AND w.entity_id = s.entity_id COLLATE "C")
        ORDER BY s.store_id, s.entity_type COLLATE "C", s.entity_id COLLATE "C"
        ON CONFLICT (tenant_id, store_id, entity_type, entity_id) DO UPDATE
            SET version = EXCLUDED.version, previous_version = EXCLUDED.previous_version
            WHERE v.version = EXCLUDED.previous_version;
    GET DIAGNOSTICS rows_hit = ROW_COUNT;
    IF rows_hit <> cardinality(entity_ids) THEN
        RETURN 'an entity';
    END IF;

    IF cardinality(command_ids) > 0 THEN
        INSERT INTO record.ves_command_dedupe (tenant_id, store_id, command_id, event_id)
            SELECT the_tenant, u.store_id, u.command_id, u.event_id
            FROM unnest(command_stores, command_ids, command_events) AS u (store_id, command_id, event_id)
            ORDER BY u.store_id, u.command_id
            ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS rows_hit = ROW_COUNT;
        IF rows_hit <> cardinality(command_ids) THEN
            RETURN 'a command id';
        END IF;
    END IF;
    RETURN NULL;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA record FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record.ves_advance TO sequencer_app;
