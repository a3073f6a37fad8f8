-- The archive: where events go that are old enough. A row leaves its table only into the archive, in one
-- transaction, unchanged, below a committed range, and by a member of sequencer_admin.
--
-- Streams are read over both tables together: an archived event keeps its number, its id stays taken, its
-- receipt and proofs stay what they were.

CREATE TABLE record.ves_events_archive (LIKE record.ves_events INCLUDING CONSTRAINTS INCLUDING STORAGE);
ALTER TABLE record.ves_events_archive
    ADD COLUMN archived_at timestamptz NOT NULL,
    ADD PRIMARY KEY (tenant_id, store_id, sequence_number),
    ADD UNIQUE (tenant_id, event_id);
ALTER TABLE record.ves_events_archive
    ALTER COLUMN tenant_id SET STATISTICS 0, ALTER COLUMN store_id SET STATISTICS 0;
CREATE INDEX ves_events_archive_entity
    ON record.ves_events_archive (tenant_id, store_id, entity_type, entity_id, sequence_number);

CREATE TABLE record.events_archive (LIKE record.events INCLUDING CONSTRAINTS INCLUDING STORAGE);
ALTER TABLE record.events_archive
    ADD COLUMN archived_at timestamptz NOT NULL,
    ADD PRIMARY KEY (tenant_id, store_id, sequence_number),
    ADD UNIQUE (tenant_id, event_id);
ALTER TABLE record.events_archive
    ALTER COLUMN tenant_id SET STATISTICS 0, ALTER COLUMN store_id SET STATISTICS 0;
CREATE INDEX events_archive_entity
    ON record.events_archive (tenant_id, store_id, entity_type, entity_id, sequence_number);

SELECT record.keep_but_sealing('ves_events_archive', 'payload_sealed');
SELECT record.keep_but_sealing('events_archive', 'payload_encrypted');
REVOKE INSERT ON record.ves_events_archive, record.events_archive FROM sequencer_app;
GRANT INSERT ON record.ves_events_archive, record.events_archive TO sequencer_admin;

CREATE FUNCTION record.refuse_delete_but_archived() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    archived boolean;
BEGIN
    IF record.is_admin() THEN
        IF TG_TABLE_NAME = 'ves_events' THEN
            SELECT true INTO archived FROM record.ves_events_archive a
                JOIN record.ves_commitment_counters c
                    ON c.tenant_id = a.tenant_id AND c.store_id = a.store_id
                WHERE a.tenant_id = OLD.tenant_id AND a.store_id = OLD.store_id
                    AND a.sequence_number = OLD.sequence_number
                    AND a.xmin = pg_current_xact_id()::xid
                    AND to_jsonb(a) - 'archived_at' = to_jsonb(OLD)
                    AND c.committed_through >= OLD.sequence_number;
        ELSE
            SELECT true INTO archived FROM record.events_archive a
                WHERE a.tenant_id = OLD.tenant_id AND a.store_id = OLD.store_id
                    AND a.sequence_number = OLD.sequence_number
                    AND a.xmin = pg_current_xact_id()::xid
                    AND to_jsonb(a) - 'archived_at' = to_jsonb(OLD)
                    AND EXISTS (
                        SELECT FROM record.batch_commitments b
                        WHERE b.tenant_id = OLD.tenant_id AND b.store_id = OLD.store_id
                            AND b.sequence_end >= OLD.sequence_number
                            AND b.sequence_start <= OLD.sequence_number
                    );
        END IF;
        IF archived THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION '%.% is append-only: % is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

DO $triggers$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['ves_events', 'events'] LOOP
        EXECUTE format('DROP TRIGGER append_only_delete ON record.%I', t);
        EXECUTE format(
            'CREATE TRIGGER append_only_delete BEFORE DELETE ON record.%I '
            'FOR EACH ROW EXECUTE FUNCTION record.refuse_delete_but_archived()', t);
        EXECUTE format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER append_only_delete', t);
        EXECUTE format('GRANT DELETE ON record.%I TO sequencer_admin', t);
    END LOOP;
END
$triggers$;

REVOKE ALL ON FUNCTION record.refuse_delete_but_archived FROM PUBLIC;
