-- The archive: where events go that are old enough. A row leaves its table only into the archive, and enters
-- the archive only out of its table: in one transaction, unchanged, below a committed range, and by a member of
-- sequencer_admin. So no event is ever lost, doubled or made up by archiving.
--
-- Streams are read over both tables together, through the views ves_events_all and events_all: an archived
-- event keeps its number, its id stays taken, its receipt and proofs stay what they were. One statement over a
-- view has one snapshot, in which a row stands in exactly one of its tables.
--
-- The tables' unique indexes know nothing of each other. Whoever archives therefore raises the tenant's epoch
-- under its key lock: an append that was decided before an id went into the archive is decided anew.

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

-- The other direction: what is put into the archive is what stands in the table at this moment, ...
CREATE FUNCTION record.refuse_insert_but_archiving() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    stands boolean;
BEGIN
    IF record.is_admin() THEN
        IF TG_TABLE_NAME = 'ves_events_archive' THEN
            SELECT true INTO stands FROM record.ves_events e
                WHERE e.tenant_id = NEW.tenant_id AND e.store_id = NEW.store_id
                    AND e.sequence_number = NEW.sequence_number
                    AND to_jsonb(e) = to_jsonb(NEW) - 'archived_at';
        ELSE
            SELECT true INTO stands FROM record.events e
                WHERE e.tenant_id = NEW.tenant_id AND e.store_id = NEW.store_id
                    AND e.sequence_number = NEW.sequence_number
                    AND to_jsonb(e) = to_jsonb(NEW) - 'archived_at';
        END IF;
        IF stands THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '%.% takes only rows that are archived: % is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

-- ... and no longer stands there when the transaction ends.
CREATE FUNCTION record.refuse_archived_twice() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    still_there boolean;
BEGIN
    IF TG_TABLE_NAME = 'ves_events_archive' THEN
        SELECT true INTO still_there FROM record.ves_events e
            WHERE e.tenant_id = NEW.tenant_id AND e.store_id = NEW.store_id
                AND e.sequence_number = NEW.sequence_number;
    ELSE
        SELECT true INTO still_there FROM record.events e
            WHERE e.tenant_id = NEW.tenant_id AND e.store_id = NEW.store_id
                AND e.sequence_number = NEW.sequence_number;
    END IF;
    IF still_there THEN
        RAISE EXCEPTION '%.%: event % was archived and still stands in its table', TG_TABLE_SCHEMA,
            TG_TABLE_NAME, NEW.event_id USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END
$$;

DO $triggers$
DECLARE
    t text;
    columns text;
BEGIN
    FOREACH t IN ARRAY ARRAY['ves_events', 'events'] LOOP
        EXECUTE format('DROP TRIGGER append_only_delete ON record.%I', t);
        EXECUTE format(
            'CREATE TRIGGER append_only_delete BEFORE DELETE ON record.%I '
            'FOR EACH ROW EXECUTE FUNCTION record.refuse_delete_but_archived()', t);
        EXECUTE format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER append_only_delete', t);
        EXECUTE format('GRANT DELETE ON record.%I TO sequencer_admin', t);
        EXECUTE format(
            'CREATE TRIGGER only_archived BEFORE INSERT ON record.%I '
            'FOR EACH ROW EXECUTE FUNCTION record.refuse_insert_but_archiving()', t || '_archive');
        EXECUTE format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER only_archived', t || '_archive');
        EXECUTE format(
            'CREATE CONSTRAINT TRIGGER archived_once AFTER INSERT ON record.%I DEFERRABLE INITIALLY DEFERRED '
            'FOR EACH ROW EXECUTE FUNCTION record.refuse_archived_twice()', t || '_archive');
        EXECUTE format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER archived_once', t || '_archive');
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns FROM pg_attribute
            WHERE attrelid = ('record.' || t)::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format(
            'CREATE VIEW record.%I AS '
            'SELECT %s FROM record.%I UNION ALL SELECT %s FROM record.%I',
            t || '_all', columns, t, columns, t || '_archive');
        EXECUTE format(
            'GRANT SELECT ON record.%I TO sequencer_app, sequencer_reader, sequencer_admin', t || '_all');
    END LOOP;
END
$triggers$;

REVOKE ALL ON FUNCTION record.refuse_delete_but_archived, record.refuse_insert_but_archiving,
    record.refuse_archived_twice FROM PUBLIC;

-- What whoever archives writes besides: the tenant's epoch, and what was done.
GRANT INSERT, UPDATE ON record.tenant_epochs TO sequencer_admin;
GRANT INSERT ON record.audit_log TO sequencer_admin;
GRANT INSERT, UPDATE ON record.audit_counters TO sequencer_admin;
