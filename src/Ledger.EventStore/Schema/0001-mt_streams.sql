-- Marten 9: one row per stream, with its current version. String identity, conjoined tenancy.
create table mt_streams (
  tenant_id   varchar     not null default '*DEFAULT*',
  id          varchar     not null,
  type        varchar     null,
  version     bigint      null,
  timestamp   timestamptz not null default now(),
  created     timestamptz not null default now(),
  is_archived boolean     null default false,
  constraint pkey_mt_streams_tenant_id_id primary key (tenant_id, id)
) with (fillfactor = 80);
