-- A database that was brought back from a copy, and what became of the numbers it no longer knows of.
--
-- A restoration without a confirmation keeps the server read-only. Voided numbers were given to events that
-- are lost; they are passed over and never given again, and commitments go around them.

CREATE TABLE record.restorations (
    restoration_id uuid PRIMARY KEY,
    restored_at timestamptz NOT NULL,
    node_id uuid NOT NULL,
    cause text COLLATE "C" NOT NULL CHECK (cause IN ('backup', 'behind')),
    details text COLLATE "C" NOT NULL -- for people
);

CREATE TABLE record.restoration_confirmations (
    restoration_id uuid PRIMARY KEY REFERENCES record.restorations,
    confirmed_at timestamptz NOT NULL,
    reason text COLLATE "C" NOT NULL,
    compared text COLLATE "C" NOT NULL -- for people
);

CREATE TABLE record.voided_numbers (
    tenant_id uuid NOT NULL,
    store_id uuid NOT NULL,
    first_number bigint NOT NULL CHECK (first_number >= 1),
    last_number bigint NOT NULL CHECK (last_number >= first_number),
    voided_at timestamptz NOT NULL,
    restoration_id uuid NOT NULL REFERENCES record.restorations,
    PRIMARY KEY (tenant_id, store_id, first_number)
);

SELECT record.keep('restorations');
SELECT record.keep('restoration_confirmations');
SELECT record.keep('voided_numbers');
