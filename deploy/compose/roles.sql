-- Run once by the database's superuser, before anything else: who may log in, and as what.
--
--   sequencer_owner         owns the schema; for migrations only
--   sequencer_app_login     the server: member of sequencer_app (INSERT and SELECT; UPDATE of counters)
--   sequencer_anchor_login  the anchor: member of sequencer_anchor (adds anchors, reads commitments)
--   sequencer_admin_login   commands that seal payloads anew or archive: member of sequencer_admin
--
-- psql reads the passwords from their files itself: they stand in no argument and in no variable.
\set ON_ERROR_STOP on
\set owner_password `cat /run/secrets/database_owner_password`
\set app_password `cat /run/secrets/database_app_password`
\set anchor_password `cat /run/secrets/database_anchor_password`
\set admin_password `cat /run/secrets/database_admin_password`

CREATE ROLE sequencer_app NOLOGIN;
CREATE ROLE sequencer_admin NOLOGIN;
CREATE ROLE sequencer_anchor NOLOGIN;
CREATE ROLE sequencer_reader NOLOGIN;
-- A statement that is logged shows no password: it is not logged at all.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
CREATE ROLE sequencer_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE sequencer_app_login LOGIN PASSWORD :'app_password' IN ROLE sequencer_app;
CREATE ROLE sequencer_anchor_login LOGIN PASSWORD :'anchor_password' IN ROLE sequencer_anchor;
CREATE ROLE sequencer_admin_login LOGIN PASSWORD :'admin_password' IN ROLE sequencer_admin;
RESET log_statement;
RESET log_min_error_statement;

ALTER DATABASE sequencer OWNER TO sequencer_owner;
REVOKE ALL ON DATABASE sequencer FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE sequencer TO sequencer_owner;
GRANT CONNECT ON DATABASE sequencer TO sequencer_app, sequencer_admin, sequencer_anchor, sequencer_reader;
