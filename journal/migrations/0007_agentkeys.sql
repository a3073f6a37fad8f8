-- Agent keys that give way to another: when, to whom, and what shows that it was their holder's wish.
--
-- A key ends at the earliest of its rows here; a row that would end it later is not written.

CREATE TABLE record.agent_key_retirements (
    tenant_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    key_id bigint NOT NULL,
    replaced_by bigint NOT NULL, -- key_id of the same agent
    retires_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    -- The key's own signature over H("VES_KEY_ROTATION_V1" || ...), where one was given.
    rotation_signature bytea CHECK (octet_length(rotation_signature) = 64),
    PRIMARY KEY (tenant_id, agent_id, key_id, replaced_by, retires_at),
    FOREIGN KEY (tenant_id, agent_id, key_id) REFERENCES record.agent_keys,
    FOREIGN KEY (tenant_id, agent_id, replaced_by) REFERENCES record.agent_keys,
    CHECK (replaced_by <> key_id)
);
SELECT record.keep('agent_key_retirements');

-- Proofs of possession, with the signature itself; also those that came after the registration. What was
-- proven before this table existed is in agent_keys.proof_of_possession alone.

CREATE TABLE record.agent_key_proofs (
    tenant_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    key_id bigint NOT NULL,
    version smallint NOT NULL CHECK (version IN (1, 2)), -- which challenge: VES_POP_V1 or VES_POP_V2
    recorded_at timestamptz NOT NULL,
    signature bytea NOT NULL CHECK (octet_length(signature) = 64),
    PRIMARY KEY (tenant_id, agent_id, key_id, version),
    FOREIGN KEY (tenant_id, agent_id, key_id) REFERENCES record.agent_keys
);
SELECT record.keep('agent_key_proofs');
