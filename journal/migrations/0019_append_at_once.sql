-- A few events of a few tenants, appended by one statement that is a transaction of its own: one round trip
-- where BEGIN, the compare-and-sets, COPY and COMMIT take five.
--
-- The same as record.ves_advance_groups and COPY after it, in the same order, each statement with a snapshot of
-- its own: key locks if they are free, epochs, counters, entity versions, command ids, then the rows of the
-- groups for which nothing moved. Where ves_advance_groups says "undone", and for an event id that is there
-- already, this raises: nothing is stored then. For many rows COPY is cheaper.

CREATE TYPE record.ves_event_row AS (
    sequence_number bigint,
    sequenced_at timestamptz,
    agent_key_id bigint,
    base_version bigint,
    sequencer_key_version integer,
    payload_kind smallint,
    tenant_id uuid,
    store_id uuid,
    event_id uuid,
    source_agent_id uuid,
    command_id uuid,
    sequencer_id uuid,
    entity_type text,
    entity_id text,
    event_type text,
    created_at text,
    payload_plain_hash bytea,
    payload_cipher_hash bytea,
    agent_signature bytea,
    event_signing_hash bytea,
    receipt_hash bytea,
    sequencer_signature bytea,
    payload_sealed bytea
);

CREATE FUNCTION record.ves_append_groups(
    tenants uuid[], key_locks bigint[], key_epochs bigint[], credential_epochs bigint[],
    stream_groups integer[], stores uuid[], believed bigint[], reached bigint[], last_times timestamptz[],
    entity_groups integer[], entity_stores uuid[], entity_types text[], entity_ids text[],
    versions_believed bigint[], versions_new bigint[],
    command_groups integer[], command_stores uuid[], command_ids uuid[], command_events uuid[],
    events record.ves_event_row[],
    OUT moved text[]
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET lock_timeout = '100ms' AS $$ -- whoever has to wait for somebody does so alone
DECLARE
    undone text;
BEGIN
    SELECT a.moved, a.undone INTO moved, undone FROM record.ves_advance_groups(
        tenants, key_locks, key_epochs, credential_epochs, stream_groups, stores, believed, reached, last_times,
        entity_groups, entity_stores, entity_types, entity_ids, versions_believed, versions_new,
        command_groups, command_stores, command_ids, command_events
    ) a;
    IF undone IS NOT NULL THEN
        RAISE EXCEPTION 'another writer was first: %', undone USING ERRCODE = 'serialization_failure';
    END IF;
    INSERT INTO record.ves_events (
        sequence_number, sequenced_at, agent_key_id, base_version, sequencer_key_version, payload_kind,
        tenant_id, store_id, event_id, source_agent_id, command_id, sequencer_id,
        entity_type, entity_id, event_type, created_at, payload_plain_hash, payload_cipher_hash,
        agent_signature, event_signing_hash, receipt_hash, sequencer_signature, payload_sealed
    )
    SELECT e.* FROM unnest(events) e
        WHERE moved[array_position(tenants, e.tenant_id)] IS NULL;
END
$$;

REVOKE ALL ON FUNCTION record.ves_append_groups FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record.ves_append_groups TO sequencer_app;
