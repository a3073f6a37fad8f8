-- What an attacker with a login of ours found, closed.
--
-- PostgreSQL looks for tables and types in pg_temp before pg_catalog unless the search_path names it: whoever
-- may make temporary tables could show our functions a pg_roles of his own. Whoever creates a role is, since
-- PostgreSQL 16, its member on paper, without a right to act as it: that is no membership to us. A trigger on
-- a table of "work" would run as whoever writes there next, a migration included.

DO $paths$
DECLARE
    ours regprocedure;
BEGIN
    FOR ours IN SELECT p.oid FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'record'
    LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', ours);
    END LOOP;
END
$paths$;

-- Direct members only, and those who may act as the role: not superusers, not the role's creator.
-- (The two options are columns since PostgreSQL 16; before it every member has both.)
CREATE OR REPLACE FUNCTION record.is_admin() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_auth_members m
        JOIN pg_catalog.pg_roles granted ON granted.oid = m.roleid
        JOIN pg_catalog.pg_roles member ON member.oid = m.member
        WHERE granted.rolname = 'sequencer_admin' AND member.rolname = session_user
            AND (
                coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true)
                OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)
            )
    )
$$;

CREATE OR REPLACE FUNCTION record.refuse_change_but_sealing() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    resealed record.ves_events;
BEGIN
    resealed := OLD;
    resealed.payload_sealed := NEW.payload_sealed;
    IF resealed IS NOT DISTINCT FROM NEW AND record.is_admin() THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '%.% is append-only: % is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

ALTER DEFAULT PRIVILEGES IN SCHEMA work REVOKE ALL ON TABLES FROM sequencer_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA work GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO sequencer_app;
DO $work$
DECLARE
    t text;
BEGIN
    FOR t IN SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = 'work' LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON work.%I FROM sequencer_app', t);
        EXECUTE pg_catalog.format('GRANT SELECT, INSERT, UPDATE, DELETE ON work.%I TO sequencer_app', t);
    END LOOP;
END
$work$;
