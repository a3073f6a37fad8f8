-- How plaintext and old at-rest keys come to an end, noticed by the tables themselves whoever writes.
--
-- record.at_rest_notes remembers per table when plaintext was written first, when a re-encryption began to
-- look at all rows, and when one ended without having left or met any. The trigger costs a comparison of
-- four bytes per row, and does something only for plaintext; AFTER, because a BEFORE trigger for each row
-- would take from COPY its writing in bulk.
--
-- record.forbid_at_rest_keys makes a table refuse new frames under retired keys. Keys are constants of the
-- trigger's condition: before the first retirement there is none, afterwards it costs another comparison.
-- Making it waits for every transaction that writes to the table, so what comes later is refused for certain.

CREATE TABLE record.at_rest_key_retirements (
    key_id bytea PRIMARY KEY CHECK (octet_length(key_id) = 8),
    retired_at timestamptz NOT NULL
);

CREATE TABLE record.at_rest_notes (
    table_name text COLLATE "C" NOT NULL,
    note_number bigint NOT NULL CHECK (note_number >= 1),
    noted text COLLATE "C" NOT NULL CHECK (noted IN ('plaintext', 'sweep', 'clear')),
    noted_at timestamptz NOT NULL,
    PRIMARY KEY (table_name, note_number)
);

SELECT record.keep('at_rest_key_retirements');
SELECT record.keep('at_rest_notes');

-- Whoever writes plaintext shares the lock until the transaction ends; a sweep or a clear note takes it alone.
CREATE FUNCTION record.note_plaintext() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    last record;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(6216466529489541204);
    SELECT note_number, noted INTO last FROM record.at_rest_notes
        WHERE table_name = TG_TABLE_NAME ORDER BY note_number DESC LIMIT 1;
    IF last.noted IS DISTINCT FROM 'plaintext' THEN
        -- Only other writers of plaintext can be first: then theirs is the note.
        INSERT INTO record.at_rest_notes (table_name, note_number, noted, noted_at)
            VALUES (TG_TABLE_NAME, coalesce(last.note_number, 0) + 1, 'plaintext', clock_timestamp())
            ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION record.refuse_retired_key() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    -- 57000: operator intervention. Nothing is stored; the writer waits until it was restarted.
    RAISE EXCEPTION 'this node seals under an at-rest key that is retired: restart it with the current ring'
        USING ERRCODE = 'operator_intervention';
END
$$;

-- The_keys beside those retired already. With none at all nothing is refused. Into an archive rows come as
-- they are: there only new seals are judged.
CREATE FUNCTION record.forbid_at_rest_keys(the_table text, the_keys bytea[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '3s' AS $$
DECLARE
    the_column text;
    forbidden text;
    acts text := CASE WHEN the_table LIKE '%_archive' THEN 'UPDATE' ELSE 'INSERT OR UPDATE' END;
BEGIN
    the_column := CASE the_table
        WHEN 'ves_events' THEN 'payload_sealed'
        WHEN 'ves_events_archive' THEN 'payload_sealed'
        WHEN 'events' THEN 'payload_encrypted'
        WHEN 'events_archive' THEN 'payload_encrypted'
        WHEN 'ves_validity_proofs' THEN 'proof'
    END;
    IF the_column IS NULL THEN
        RAISE EXCEPTION '% holds no frames', the_table USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT string_agg(format('%L::bytea', k), ', ' ORDER BY k) INTO forbidden FROM (
        SELECT unnest(the_keys) AS k UNION SELECT key_id FROM record.at_rest_key_retirements
    ) AS all_keys;
    IF forbidden IS NULL THEN
        EXECUTE format('DROP TRIGGER IF EXISTS retired_keys ON record.%I', the_table);
        RETURN;
    END IF;
    -- SSE1 frames name no key; whoever still writes them is an older version of the program.
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER retired_keys AFTER %4$s ON record.%1$I FOR EACH ROW WHEN ('
        'substr(NEW.%2$I, 1, 4) = ''SSE1''::bytea OR '
        'substr(NEW.%2$I, 1, 4) = ''SSE2''::bytea AND substr(NEW.%2$I, 5, 8) IN (%3$s)) '
        'EXECUTE FUNCTION record.refuse_retired_key()', the_table, the_column, forbidden, acts);
    EXECUTE format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER retired_keys', the_table);
END
$$;

DO $triggers$
DECLARE
    t text;
    c text;
BEGIN
    FOR t, c IN VALUES ('ves_events', 'payload_sealed'), ('events', 'payload_encrypted'),
        ('ves_validity_proofs', 'proof')
    LOOP
        EXECUTE format(
            'CREATE TRIGGER plaintext_is_noted AFTER INSERT ON record.%1$I FOR EACH ROW '
            'WHEN (substr(NEW.%2$I, 1, 4) NOT IN (''SSE1''::bytea, ''SSE2''::bytea)) '
            'EXECUTE FUNCTION record.note_plaintext()', t, c);
        EXECUTE format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER plaintext_is_noted', t);
    END LOOP;
END
$triggers$;

REVOKE ALL ON FUNCTION record.note_plaintext, record.refuse_retired_key, record.forbid_at_rest_keys FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record.forbid_at_rest_keys TO sequencer_admin;
GRANT INSERT ON record.at_rest_notes TO sequencer_admin;
