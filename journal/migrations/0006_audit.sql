-- The audit trail's commitments: ranges of a node's chain under chained roots (ves/audit.py has the formulas).
--
-- No counter beside it: the last row of a node is where its commitments stand. Two committers that want the
-- same place meet at the primary key, and whoever read an older last row stores nothing.

CREATE TABLE record.audit_commitments (
    node_id uuid NOT NULL,
    entry_start bigint NOT NULL CHECK (entry_start >= 1),
    entry_end bigint NOT NULL,
    merkle_root bytea NOT NULL CHECK (octet_length(merkle_root) = 32),
    prev_state_root bytea NOT NULL CHECK (octet_length(prev_state_root) = 32),
    new_state_root bytea NOT NULL CHECK (octet_length(new_state_root) = 32),
    committed_at timestamptz NOT NULL,
    PRIMARY KEY (node_id, entry_start),
    CHECK (entry_end >= entry_start AND entry_end - entry_start < 1024)
);
SELECT record.keep('audit_commitments');

-- Newest first is how people look at it.
CREATE INDEX audit_log_time ON record.audit_log (recorded_at, node_id, entry_number);
CREATE INDEX audit_log_tenant_time ON record.audit_log (tenant_id, recorded_at, node_id, entry_number);
