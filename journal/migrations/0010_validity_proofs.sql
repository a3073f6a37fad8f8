-- Validity proofs of VES commitments: what somebody else computed about a batch, stored sealed.

ALTER TABLE record.ves_commitments ADD CONSTRAINT ves_commitments_stream UNIQUE (batch_id, tenant_id, store_id);

CREATE TABLE record.ves_validity_proofs (
    proof_id uuid PRIMARY KEY,
    batch_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    submitted_at timestamptz NOT NULL,
    proof_version bigint NOT NULL CHECK (proof_version BETWEEN 1 AND 4294967295),
    proof_type text COLLATE "C" NOT NULL CHECK (octet_length(proof_type) BETWEEN 1 AND 32),
    proof_hash bytea NOT NULL CHECK (octet_length(proof_hash) = 32),
    public_inputs text COLLATE "C", -- canonical JSON as it was agreed to; NULL: none were sent
    proof bytea NOT NULL,
    UNIQUE (batch_id, proof_type, proof_version),
    FOREIGN KEY (batch_id, tenant_id, store_id)
        REFERENCES record.ves_commitments (batch_id, tenant_id, store_id)
);
ALTER TABLE record.ves_validity_proofs ALTER COLUMN proof SET STORAGE EXTERNAL;
CREATE INDEX ves_validity_proofs_page ON record.ves_validity_proofs (batch_id, submitted_at, proof_id);

SELECT record.keep_but_sealing('ves_validity_proofs', 'proof');
