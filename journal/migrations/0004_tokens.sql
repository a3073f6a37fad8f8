-- Signed tokens are not kept, so they cannot be revoked one by one: a row says until which second of issue the
-- tokens of a subject are dead. Subject = tenant means every token of the tenant. The number comes from
-- record.api_key_revocation_counters, so that all revocations become visible in one order.

CREATE TABLE record.token_revocations (
    revocation_number bigint PRIMARY KEY,
    revoked_at timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    subject uuid NOT NULL,
    revoked_until_s bigint NOT NULL, -- seconds since the Unix epoch, as in a token's iat; inclusive
    reason text COLLATE "C"
);
CREATE INDEX token_revocations_subject ON record.token_revocations (tenant_id, subject, revoked_until_s);
CREATE INDEX token_revocations_tenant ON record.token_revocations (tenant_id, revocation_number);
SELECT record.keep('token_revocations');
