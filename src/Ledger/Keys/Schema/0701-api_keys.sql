-- A row of every key for each tenant that sees it: the one it is for, and the operator's. The view "Keys".
create table api_keys (
  tenant_id        varchar     not null,  -- who sees it
  key_id           varchar     not null collate "C",
  name             varchar     not null,
  of_tenant        varchar     not null,  -- whose data it gives access to
  scopes           varchar     not null,  -- with spaces between
  prefix           varchar     not null,
  created_at       timestamptz not null,
  created_by       varchar     null,
  created_position bigint      not null,
  expires_at       timestamptz null,
  rotated_at       timestamptz null,
  old_until        timestamptz null,      -- until when the secret before the present one holds
  revoked_at       timestamptz null,
  version          bigint      not null,
  primary key (tenant_id, key_id)
);
create index api_keys_by_creation on api_keys (tenant_id, created_position);
create index api_keys_not_revoked on api_keys (tenant_id, created_position) where revoked_at is null;
