-- When keys were last used, as nodes note it now and then. No view: the log does not tell it, and a rebuild leaves it alone.
create table api_key_uses (
  tenant_id    varchar     not null,  -- who sees it
  key_id       varchar     not null collate "C",
  last_used_at timestamptz not null,
  primary key (tenant_id, key_id)
);
