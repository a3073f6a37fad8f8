-- Once, after `sequencer migrate` has made the roles, as sequencer_owner in the database sequencer.
CREATE ROLE shop_server LOGIN PASSWORD :'server_password' CONNECTION LIMIT 40 IN ROLE sequencer_app;
GRANT CONNECT, TEMPORARY ON DATABASE sequencer TO sequencer_app;
