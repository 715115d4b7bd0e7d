-- A key may belong to an account, and changes are said to be one's. What belongs to nobody is the gateway's.
ALTER TABLE api_keys ADD COLUMN account TEXT;
ALTER TABLE audit ADD COLUMN account TEXT;
CREATE INDEX audit_by_account ON audit (account, seq) WHERE account IS NOT NULL;
