-- Once, on the primary, as the superuser: the owner of the schema and its database, as in docs/database.md. (Patroni
-- makes the logins that it replicates and rewinds with by itself.)
-- psql reads the passwords from \set lines before this file (standard input), never from its command line.
CREATE ROLE sequencer_owner LOGIN PASSWORD :'owner_password' CREATEROLE;
CREATE DATABASE sequencer OWNER sequencer_owner;
REVOKE CONNECT, TEMPORARY ON DATABASE sequencer FROM PUBLIC;
