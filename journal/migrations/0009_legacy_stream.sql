-- The legacy stream: unsigned events with a counter of their own, beside the VES stream of the same store.
--
-- Payloads are frames (VES 5) like those of ves_events. Entity versions are shared with the VES stream.
-- record.keep_but_sealing(table, column) keeps a table like record.keep, but lets members of sequencer_admin
-- seal one column anew.

-- Explicit members of sequencer_admin only: being superuser is no membership.
CREATE FUNCTION record.is_admin() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT EXISTS (
        SELECT FROM pg_auth_members m
        JOIN pg_roles granted ON granted.oid = m.roleid
        JOIN pg_roles member ON member.oid = m.member
        WHERE granted.rolname = 'sequencer_admin' AND member.rolname = session_user
    )
$$;

CREATE FUNCTION record.refuse_change_but_of() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF record.is_admin() AND to_jsonb(OLD) - TG_ARGV[0] = to_jsonb(NEW) - TG_ARGV[0] THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '%.% is append-only: % is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE FUNCTION record.keep_but_sealing(the_table text, the_column text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM record.keep(the_table);
    EXECUTE format('DROP TRIGGER append_only_update ON record.%I', the_table);
    EXECUTE format(
        'CREATE TRIGGER append_only_update BEFORE UPDATE ON record.%I '
        'FOR EACH ROW EXECUTE FUNCTION record.refuse_change_but_of(%L)', the_table, the_column);
    EXECUTE format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER append_only_update', the_table);
    EXECUTE format('GRANT UPDATE (%I) ON record.%I TO sequencer_admin', the_column, the_table);
END
$$;

CREATE TABLE record.sequence_counters (
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    current_sequence bigint NOT NULL CHECK (current_sequence >= 1),
    last_sequenced_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, store_id)
) WITH (fillfactor = 50);

CREATE TABLE record.events (
    sequence_number bigint NOT NULL CHECK (sequence_number >= 1),
    sequenced_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    base_version bigint CHECK (base_version >= 0),
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    event_id uuid NOT NULL,
    source_agent uuid NOT NULL,
    command_id uuid,
    entity_type text COLLATE "C" NOT NULL CHECK (octet_length(entity_type) BETWEEN 1 AND 128),
    entity_id text COLLATE "C" NOT NULL CHECK (octet_length(entity_id) BETWEEN 1 AND 512),
    event_type text COLLATE "C" NOT NULL CHECK (octet_length(event_type) BETWEEN 1 AND 256),
    payload_hash bytea NOT NULL CHECK (octet_length(payload_hash) = 32),
    signature bytea, -- as sent, never verified
    payload_encrypted bytea NOT NULL,
    PRIMARY KEY (tenant_id, store_id, sequence_number),
    UNIQUE (tenant_id, event_id)
);
ALTER TABLE record.events ALTER COLUMN tenant_id SET STATISTICS 0, ALTER COLUMN store_id SET STATISTICS 0;
ALTER TABLE record.events ALTER COLUMN payload_encrypted SET STORAGE EXTERNAL;
CREATE INDEX events_entity
    ON record.events (tenant_id, store_id, entity_type, entity_id, sequence_number);

CREATE TABLE record.event_command_dedupe (
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    command_id uuid NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, store_id, command_id)
);

CREATE TABLE record.batch_commitments (
    batch_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    sequence_start bigint NOT NULL CHECK (sequence_start >= 1),
    sequence_end bigint NOT NULL CHECK (sequence_end >= sequence_start),
    event_count bigint NOT NULL,
    committed_at timestamptz NOT NULL,
    events_root bytea NOT NULL CHECK (octet_length(events_root) = 32),
    prev_state_root bytea NOT NULL CHECK (octet_length(prev_state_root) = 32),
    new_state_root bytea NOT NULL CHECK (octet_length(new_state_root) = 32),
    levels bytea NOT NULL, -- all nodes of the tree: proofs need no event any more
    UNIQUE (tenant_id, store_id, sequence_start),
    CHECK (event_count = sequence_end - sequence_start + 1)
);
ALTER TABLE record.batch_commitments ALTER COLUMN levels SET STORAGE EXTERNAL;

-- What record.ves_advance is to the VES stream: the counters and command ids are this stream's own, the epochs
-- and the entities' versions are looked at and moved in there, where both streams have them.
CREATE FUNCTION record.legacy_advance(
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
    moved text;
BEGIN
    FOR i IN 1 .. cardinality(stores) LOOP
        IF reached[i] = believed[i] THEN -- nothing new for this stream, but what was decided rests on its head
            PERFORM FROM record.sequence_counters c
                WHERE c.tenant_id = the_tenant AND c.store_id = stores[i] AND c.current_sequence <> believed[i];
            rows_hit := CASE WHEN FOUND THEN 0 ELSE 1 END;
        ELSIF believed[i] = 0 THEN
            INSERT INTO record.sequence_counters (tenant_id, store_id, current_sequence, last_sequenced_at)
                VALUES (the_tenant, stores[i], reached[i], last_times[i]) ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS rows_hit = ROW_COUNT;
        ELSE
            UPDATE record.sequence_counters c
                SET current_sequence = reached[i], last_sequenced_at = last_times[i]
                WHERE c.tenant_id = the_tenant AND c.store_id = stores[i] AND c.current_sequence = believed[i];
            GET DIAGNOSTICS rows_hit = ROW_COUNT;
        END IF;
        IF rows_hit <> 1 THEN
            RETURN 'a stream';
        END IF;
    END LOOP;

    moved := record.ves_advance(
        the_tenant, believed_key_epoch, believed_credential_epoch, '{}', '{}', '{}', '{}',
        entity_stores, entity_types, entity_ids, versions_believed, versions_new, '{}', '{}', '{}');
    IF moved IS NOT NULL THEN
        RETURN moved;
    END IF;

    IF cardinality(command_ids) > 0 THEN
        INSERT INTO record.event_command_dedupe (tenant_id, store_id, command_id, event_id)
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

SELECT record.keep('sequence_counters', true);
SELECT record.keep_but_sealing('events', 'payload_encrypted');
SELECT record.keep('event_command_dedupe');
SELECT record.keep('batch_commitments');

REVOKE ALL ON FUNCTION record.keep_but_sealing, record.refuse_change_but_of, record.is_admin,
    record.legacy_advance FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record.legacy_advance TO sequencer_app;
-- Called by triggers, so by whoever fires them.
GRANT EXECUTE ON FUNCTION record.is_admin TO sequencer_app, sequencer_admin, sequencer_reader;
