-- A key may belong to an account, and changes are said to be one's. What belongs to nobody is the gateway's. A webhook has the account
-- that its agent had when it was made: with another one it is of no use.
ALTER TABLE api_keys ADD COLUMN account TEXT;
ALTER TABLE webhooks ADD COLUMN account TEXT;
ALTER TABLE audit ADD COLUMN account TEXT;
CREATE INDEX audit_by_account ON audit (account, seq) WHERE account IS NOT NULL;
