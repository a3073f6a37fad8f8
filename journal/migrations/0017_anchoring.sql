-- Anchors: what was put on a chain, by which signed bytes, and what became of it.
--
-- A role of its own works here, sequencer_anchor: it adds anchor rows and entries of its own audit chain, and
-- reads commitments; the server's role reads anchors and adds reports and requests. One row is the lease that
-- makes exactly one anchor of many nodes work: each of its writes names the epoch it was done under.

DO $roles$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sequencer_anchor') THEN
        BEGIN
            CREATE ROLE sequencer_anchor NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- roles belong to the whole cluster: another database's migration made it meanwhile
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'role sequencer_anchor does not exist and % may not create it', current_user
                    USING ERRCODE = 'insufficient_privilege',
                          HINT = 'migrate as a role with CREATEROLE, or let a superuser CREATE ROLE '
                              || 'sequencer_anchor (NOLOGIN) first';
        END;
    END IF;
END
$roles$;

CREATE TABLE record.anchor_leases (
    single_row boolean PRIMARY KEY DEFAULT true CHECK (single_row),
    holder uuid NOT NULL,
    lease_epoch bigint NOT NULL CHECK (lease_epoch >= 1),
    held_until timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE record.anchors (
    anchor_number bigint PRIMARY KEY CHECK (anchor_number >= 1),
    chain_id bigint NOT NULL CHECK (chain_id >= 1),
    contract bytea NOT NULL CHECK (octet_length(contract) = 20),
    road text COLLATE "C" NOT NULL CHECK (road IN ('aggregate', 'single')),
    batch_count integer NOT NULL CHECK (batch_count BETWEEN 1 AND 4096),
    event_count bigint NOT NULL,
    oldest_committed_at timestamptz NOT NULL,
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    first_index bigint CHECK (first_index >= 0),
    previous_head bytea CHECK (octet_length(previous_head) = 32),
    planned_at timestamptz NOT NULL,
    lease_epoch bigint NOT NULL,
    UNIQUE (chain_id, contract, first_index),
    CHECK ((road = 'aggregate') = (first_index IS NOT NULL)),
    CHECK ((road = 'aggregate') = (previous_head IS NOT NULL)),
    CHECK (road = 'aggregate' OR batch_count = 1)
);

-- A commitment is in one anchor, ever.
CREATE TABLE record.anchor_batches (
    batch_id uuid PRIMARY KEY REFERENCES record.ves_commitments,
    anchor_number bigint NOT NULL REFERENCES record.anchors,
    position integer NOT NULL CHECK (position >= 0),
    leaf bytea NOT NULL CHECK (octet_length(leaf) = 32),
    UNIQUE (anchor_number, position)
);

-- Signed bytes, written before anybody is shown them.
CREATE TABLE record.anchor_transactions (
    chain_id bigint NOT NULL,
    address bytea NOT NULL CHECK (octet_length(address) = 20),
    nonce bigint NOT NULL CHECK (nonce >= 0),
    attempt integer NOT NULL CHECK (attempt >= 1),
    anchor_number bigint REFERENCES record.anchors,
    purpose text COLLATE "C" NOT NULL CHECK (purpose IN ('anchor', 'deploy')),
    tx_hash bytea NOT NULL UNIQUE CHECK (octet_length(tx_hash) = 32),
    raw bytea NOT NULL,
    gas_limit bigint NOT NULL,
    max_fee_per_gas bigint NOT NULL,
    max_priority_fee_per_gas bigint NOT NULL,
    signed_at timestamptz NOT NULL,
    lease_epoch bigint NOT NULL,
    PRIMARY KEY (chain_id, address, nonce, attempt),
    CHECK ((purpose = 'anchor') = (anchor_number IS NOT NULL))
);
CREATE INDEX anchor_transactions_anchor ON record.anchor_transactions (anchor_number);
CREATE INDEX anchor_transactions_age ON record.anchor_transactions (chain_id, address, signed_at);

CREATE TABLE record.anchor_transitions (
    anchor_number bigint NOT NULL REFERENCES record.anchors,
    transition_number integer NOT NULL CHECK (transition_number >= 1),
    state text COLLATE "C" NOT NULL
        CHECK (state IN ('pending', 'submitted', 'included', 'safe', 'finalized')),
    cause text COLLATE "C",
    tx_hash bytea REFERENCES record.anchor_transactions (tx_hash),
    block_number bigint,
    block_hash bytea CHECK (octet_length(block_hash) = 32),
    gas_used bigint,
    effective_gas_price bigint,
    at timestamptz NOT NULL,
    lease_epoch bigint NOT NULL,
    PRIMARY KEY (anchor_number, transition_number),
    CHECK (state = 'pending' OR tx_hash IS NOT NULL),
    CHECK (state IN ('pending', 'submitted') OR (block_number IS NOT NULL AND block_hash IS NOT NULL
        AND gas_used IS NOT NULL AND effective_gas_price IS NOT NULL))
);
CREATE UNIQUE INDEX anchor_transitions_end ON record.anchor_transitions (anchor_number)
    WHERE state = 'finalized';
CREATE INDEX anchor_transitions_transaction ON record.anchor_transitions (tx_hash);

CREATE TABLE record.anchor_inclusions (
    anchor_number bigint NOT NULL REFERENCES record.anchors,
    block_hash bytea NOT NULL CHECK (octet_length(block_hash) = 32),
    tx_hash bytea NOT NULL REFERENCES record.anchor_transactions (tx_hash),
    block_number bigint NOT NULL,
    block_header bytea NOT NULL,
    transaction_index integer NOT NULL,
    receipt bytea NOT NULL,
    proof bytea[] NOT NULL,
    PRIMARY KEY (anchor_number, block_hash)
);

-- An operator's word that the chain knows more than this journal.
CREATE TABLE record.anchor_resumptions (
    resumption_number bigint PRIMARY KEY CHECK (resumption_number >= 1),
    chain_id bigint NOT NULL,
    contract bytea NOT NULL CHECK (octet_length(contract) = 20),
    address bytea NOT NULL CHECK (octet_length(address) = 20),
    next_nonce bigint NOT NULL,
    next_index bigint NOT NULL,
    head bytea NOT NULL CHECK (octet_length(head) = 32),
    resumed_at timestamptz NOT NULL,
    reason text COLLATE "C" NOT NULL
);

-- What anchorers outside say they did.
CREATE TABLE record.anchor_reports (
    batch_id uuid PRIMARY KEY REFERENCES record.ves_commitments,
    chain_id bigint NOT NULL,
    tx_hash bytea NOT NULL CHECK (octet_length(tx_hash) = 32),
    block_number bigint,
    reported_at timestamptz NOT NULL,
    actor text COLLATE "C" NOT NULL
);

SELECT record.keep('anchor_leases', true);
SELECT record.keep('anchors');
SELECT record.keep('anchor_batches');
SELECT record.keep('anchor_transactions');
SELECT record.keep('anchor_transitions');
SELECT record.keep('anchor_inclusions');
SELECT record.keep('anchor_resumptions');
SELECT record.keep('anchor_reports');

-- Which commitments wait for an anchor and which anchors are under way, so that nobody has to search among all
-- of them; what somebody wants next; sums over what is finalized. All but the wishes can be made again.
CREATE TABLE work.anchor_backlog (
    batch_id uuid PRIMARY KEY,
    committed_at timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    sequence_start bigint NOT NULL
);
CREATE INDEX anchor_backlog_age ON work.anchor_backlog (committed_at, batch_id);
CREATE INDEX anchor_backlog_stream ON work.anchor_backlog (tenant_id, store_id, sequence_start);
CREATE TABLE work.anchor_requests (
    batch_id uuid PRIMARY KEY,
    requested_at timestamptz NOT NULL
);
CREATE TABLE work.open_anchors (
    anchor_number bigint PRIMARY KEY
);
CREATE TABLE work.anchor_totals (
    single_row boolean PRIMARY KEY DEFAULT true CHECK (single_row),
    batches bigint NOT NULL DEFAULT 0,
    events bigint NOT NULL DEFAULT 0,
    gas_used numeric NOT NULL DEFAULT 0,
    cost_wei numeric NOT NULL DEFAULT 0
);
INSERT INTO work.anchor_totals DEFAULT VALUES;

CREATE FUNCTION record.expect_an_anchor() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO work.anchor_backlog (batch_id, committed_at, tenant_id, store_id, sequence_start)
        VALUES (NEW.batch_id, NEW.committed_at, NEW.tenant_id, NEW.store_id, NEW.sequence_start);
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION record.expect_an_anchor() FROM PUBLIC;
CREATE TRIGGER expect_an_anchor AFTER INSERT ON record.ves_commitments
    FOR EACH ROW EXECUTE FUNCTION record.expect_an_anchor();
INSERT INTO work.anchor_backlog (batch_id, committed_at, tenant_id, store_id, sequence_start)
    SELECT batch_id, committed_at, tenant_id, store_id, sequence_start FROM record.ves_commitments;

CREATE FUNCTION record.follow_an_anchor() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.state = 'finalized' THEN
        DELETE FROM work.open_anchors WHERE anchor_number = NEW.anchor_number;
        UPDATE work.anchor_totals SET batches = batches + a.batch_count, events = events + a.event_count,
            gas_used = anchor_totals.gas_used + NEW.gas_used,
            cost_wei = cost_wei + NEW.gas_used::numeric * NEW.effective_gas_price
            FROM record.anchors a WHERE a.anchor_number = NEW.anchor_number;
    ELSE
        INSERT INTO work.open_anchors (anchor_number) VALUES (NEW.anchor_number) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION record.follow_an_anchor() FROM PUBLIC;
CREATE TRIGGER follow_an_anchor AFTER INSERT ON record.anchor_transitions
    FOR EACH ROW EXECUTE FUNCTION record.follow_an_anchor();

-- An anchor has an audit chain of its own. Its login writes in no chain of a node that signs receipts, so
-- whoever steals it can neither put entries there nor move a counter, which would look like a gap.
CREATE FUNCTION record.refuse_anothers_chain() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM record.receipt_keys k WHERE k.sequencer_id = NEW.node_id)
        OR (TG_OP = 'UPDATE' AND NEW.node_id <> OLD.node_id) THEN
        RAISE EXCEPTION 'audit chain % is a server''s: the anchor''s login does not write there', NEW.node_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION record.refuse_anothers_chain() FROM PUBLIC;
CREATE TRIGGER anchors_own_chain BEFORE INSERT ON record.audit_log FOR EACH ROW
    WHEN (pg_has_role('sequencer_anchor', 'USAGE') AND NOT pg_has_role('sequencer_app', 'USAGE'))
    EXECUTE FUNCTION record.refuse_anothers_chain();
CREATE TRIGGER anchors_own_chain BEFORE INSERT OR UPDATE ON record.audit_counters FOR EACH ROW
    WHEN (pg_has_role('sequencer_anchor', 'USAGE') AND NOT pg_has_role('sequencer_app', 'USAGE'))
    EXECUTE FUNCTION record.refuse_anothers_chain();
ALTER TABLE record.audit_log ENABLE ALWAYS TRIGGER anchors_own_chain;
ALTER TABLE record.audit_counters ENABLE ALWAYS TRIGGER anchors_own_chain;

-- The server reads anchors and adds reports; the anchor's role does the rest.
DO $grants$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['anchors', 'anchor_batches', 'anchor_transactions', 'anchor_transitions',
        'anchor_inclusions', 'anchor_resumptions', 'anchor_leases'] LOOP
        EXECUTE pg_catalog.format('REVOKE INSERT ON record.%I FROM sequencer_app', t);
        EXECUTE pg_catalog.format('GRANT SELECT, INSERT ON record.%I TO sequencer_anchor', t);
    END LOOP;
END
$grants$;
REVOKE UPDATE ON record.anchor_leases FROM sequencer_app;
GRANT UPDATE ON record.anchor_leases TO sequencer_anchor;
GRANT USAGE ON SCHEMA record, work TO sequencer_anchor;
GRANT SELECT ON record.schema_migrations, record.ves_commitments, record.anchor_reports,
    record.restorations, record.restoration_confirmations TO sequencer_anchor;
GRANT SELECT, INSERT ON record.audit_log TO sequencer_anchor;
GRANT SELECT, INSERT, UPDATE ON record.audit_counters TO sequencer_anchor;
GRANT SELECT, INSERT, DELETE ON work.anchor_backlog, work.open_anchors TO sequencer_anchor;
GRANT SELECT, DELETE ON work.anchor_requests TO sequencer_anchor;
GRANT SELECT, INSERT, UPDATE ON work.anchor_totals TO sequencer_anchor;
-- Default privileges are those of whoever made the schema; another role may be migrating now.
REVOKE ALL ON work.anchor_backlog, work.anchor_requests, work.open_anchors, work.anchor_totals
    FROM sequencer_app;
GRANT SELECT, INSERT, DELETE ON work.anchor_backlog, work.anchor_requests TO sequencer_app;
GRANT SELECT ON work.open_anchors, work.anchor_totals TO sequencer_app;
GRANT SELECT ON work.anchor_backlog, work.anchor_requests, work.open_anchors, work.anchor_totals
    TO sequencer_reader;
