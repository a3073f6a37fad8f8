-- One place that says how a table of "record" is kept: later steps call it for the tables they add.
--
-- record.keep(table) makes rows permanent and grants INSERT and SELECT; with updated_in_place the server may
-- also UPDATE (counters only). Run by migrations, granted to nobody.

CREATE FUNCTION record.keep(the_table text, updated_in_place boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format(
        'CREATE TRIGGER append_only_delete BEFORE DELETE ON record.%I '
        'FOR EACH ROW EXECUTE FUNCTION record.refuse_change()', the_table);
    EXECUTE format(
        'CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON record.%I '
        'FOR EACH STATEMENT EXECUTE FUNCTION record.refuse_change()', the_table);
    EXECUTE format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER append_only_delete', the_table);
    EXECUTE format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER append_only_truncate', the_table);
    IF updated_in_place THEN
        EXECUTE format('GRANT UPDATE ON record.%I TO sequencer_app', the_table);
    ELSE
        EXECUTE format(
            'CREATE TRIGGER append_only_update BEFORE UPDATE ON record.%I '
            'FOR EACH ROW EXECUTE FUNCTION record.refuse_change()', the_table);
        EXECUTE format('ALTER TABLE record.%I ENABLE ALWAYS TRIGGER append_only_update', the_table);
    END IF;
    EXECUTE format(
        'GRANT SELECT ON record.%I TO sequencer_app, sequencer_reader, sequencer_admin', the_table);
    EXECUTE format('GRANT INSERT ON record.%I TO sequencer_app', the_table);
END
$$;
REVOKE ALL ON FUNCTION record.keep FROM PUBLIC;
