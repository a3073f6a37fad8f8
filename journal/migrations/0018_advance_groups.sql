-- The compare-and-sets of several tenants' groups in one transaction, and cheaper ones.
--
-- Like record.ves_advance, which stays for servers of the version before: epochs, counters, entity versions,
-- command ids, each in key order, each statement with a snapshot of its own. A group that finds another world
-- than it believed in has written nothing yet and costs its neighbours nothing; where that is only seen later,
-- "undone" says so and nothing of the transaction may be committed.
--
-- Groups stand in the order of their tenants, streams in the order of groups and stores; *_groups say to which
-- group (from 1) an element belongs. key_locks: taken here if they are free, else that group is 'busy'; given
-- empty they were taken before. A new entity or command id is a plain INSERT, for what is believed new almost
-- always is: ON CONFLICT would cost each row half as much again.

CREATE FUNCTION record.ves_advance_groups(
    tenants uuid[], key_locks bigint[], key_epochs bigint[], credential_epochs bigint[],
    stream_groups integer[], stores uuid[], believed bigint[], reached bigint[], last_times timestamptz[],
    entity_groups integer[], entity_stores uuid[], entity_types text[], entity_ids text[],
    versions_believed bigint[], versions_new bigint[],
    command_groups integer[], command_stores uuid[], command_ids uuid[], command_events uuid[],
    OUT moved text[], OUT undone text
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    stands boolean[] := array_fill(true, ARRAY[cardinality(tenants)]); -- of each group: nothing moved so far
    written boolean[] := array_fill(false, ARRAY[cardinality(tenants)]);
    g integer;
    rows_hit bigint;
    rows_wanted bigint;
BEGIN
    moved := array_fill(NULL::text, ARRAY[cardinality(tenants)]);

    FOR i IN 1 .. cardinality(key_locks) LOOP
        IF NOT pg_try_advisory_xact_lock_shared(key_locks[i]) THEN
            moved[i] := 'busy';
            stands[i] := false;
        END IF;
    END LOOP;

    FOR g IN
        SELECT b.n FROM unnest(tenants, key_epochs, credential_epochs) WITH ORDINALITY
                AS b (tenant_id, key_epoch, credential_epoch, n)
            LEFT JOIN record.tenant_epochs e ON e.tenant_id = b.tenant_id
        WHERE (coalesce(e.key_epoch, 0), coalesce(e.credential_epoch, 0))
            IS DISTINCT FROM (b.key_epoch, b.credential_epoch)
    LOOP
        moved[g] := coalesce(moved[g], 'a key or a credential');
        stands[g] := false;
    END LOOP;

    FOR i IN 1 .. cardinality(stores) LOOP
        g := stream_groups[i];
        CONTINUE WHEN NOT stands[g];
        IF reached[i] = believed[i] THEN -- nothing new for this stream, but what was decided rests on its head
            PERFORM FROM record.ves_sequence_counters c
                WHERE c.tenant_id = tenants[g] AND c.store_id = stores[i] AND c.current_sequence <> believed[i];
            rows_hit := CASE WHEN FOUND THEN 0 ELSE 1 END;
        ELSIF believed[i] = 0 THEN
            INSERT INTO record.ves_sequence_counters (tenant_id, store_id, current_sequence, last_sequenced_at)
                VALUES (tenants[g], stores[i], reached[i], last_times[i]) ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS rows_hit = ROW_COUNT;
            written[g] := written[g] OR rows_hit = 1;
        ELSE
            UPDATE record.ves_sequence_counters c
                SET current_sequence = reached[i], last_sequenced_at = last_times[i]
                WHERE c.tenant_id = tenants[g] AND c.store_id = stores[i] AND c.current_sequence = believed[i];
            GET DIAGNOSTICS rows_hit = ROW_COUNT;
            written[g] := written[g] OR rows_hit = 1;
        END IF;
        IF rows_hit <> 1 THEN
            moved[g] := 'a stream';
            stands[g] := false;
            IF written[g] THEN -- another stream of the same group
                undone := 'a stream';
                RETURN;
            END IF;
        END IF;
    END LOOP;

    BEGIN
        undone := 'an entity';
        SELECT count(*) INTO rows_wanted FROM unnest(entity_groups, versions_believed) AS s (g, believed)
            WHERE s.believed > 0 AND stands[s.g];
        IF rows_wanted > 0 THEN
            UPDATE record.entity_versions v SET version = s.new, previous_version = s.believed
                FROM (
                    SELECT tenants[u.g] AS tenant_id, u.store_id, u.entity_type, u.entity_id, u.believed, u.new
                    FROM unnest(
                        entity_groups, entity_stores, entity_types, entity_ids, versions_believed, versions_new
                    ) AS u (g, store_id, entity_type, entity_id, believed, new)
                    WHERE u.believed > 0 AND stands[u.g]
                    ORDER BY u.g, u.store_id, u.entity_type COLLATE "C", u.entity_id COLLATE "C"
                ) s
                WHERE v.tenant_id = s.tenant_id AND v.store_id = s.store_id
                  AND v.entity_type = s.entity_type COLLATE "C" AND v.entity_id = s.entity_id COLLATE "C"
                  AND v.version = s.believed;
            GET DIAGNOSTICS rows_hit = ROW_COUNT;
            IF rows_hit <> rows_wanted THEN
                RETURN;
            END IF;
        END IF;
        IF rows_wanted < cardinality(entity_ids) THEN
            INSERT INTO record.entity_versions
                    (tenant_id, store_id, entity_type, entity_id, previous_version, version)
                SELECT tenants[u.g], u.store_id, u.entity_type, u.entity_id, 0, u.new
                FROM unnest(
                    entity_groups, entity_stores, entity_types, entity_ids, versions_believed, versions_new
                ) AS u (g, store_id, entity_type, entity_id, believed, new)
                WHERE u.believed = 0 AND stands[u.g]
                ORDER BY u.g, u.store_id, u.entity_type COLLATE "C", u.entity_id COLLATE "C";
        END IF;
        IF cardinality(command_ids) > 0 THEN
            undone := 'a command id';
            INSERT INTO record.ves_command_dedupe (tenant_id, store_id, command_id, event_id)
                SELECT tenants[u.g], u.store_id, u.command_id, u.event_id
                FROM unnest(command_groups, command_stores, command_ids, command_events)
                    AS u (g, store_id, command_id, event_id)
                WHERE stands[u.g]
                ORDER BY u.g, u.store_id, u.command_id;
        END IF;
        undone := NULL;
    EXCEPTION WHEN unique_violation THEN
        NULL; -- as undone says; its text would have named the row
    END;
END
$$;

REVOKE ALL ON FUNCTION record.ves_advance_groups FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record.ves_advance_groups TO sequencer_app;
