-- What all calls of a service come to in a quarter of an hour, for questions without users: the view "UsageTotals".
create table usage_service_totals (
  tenant_id  varchar     not null,
  service_id varchar     not null collate "C",
  bucket     timestamptz not null,
  currency   varchar     not null collate "C",
  units      varchar     not null collate "C",
  calls      bigint      not null,
  quantities numeric[]   not null,
  amount     numeric     not null,
  primary key (tenant_id, service_id, bucket, currency, units)
) with (fillfactor = 70);
