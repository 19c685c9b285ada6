-- What a user's calls of a service come to in a quarter of an hour: the view "UsageTotals". Quarters, because every zone's
-- clock has been a multiple of them away from UTC since 1972: any zone's hours, days and months are whole ones.
create table usage_totals (
  tenant_id  varchar     not null,
  user_id    varchar     not null collate "C",
  service_id varchar     not null collate "C",
  bucket     timestamptz not null,              -- the first instant of the quarter
  currency   varchar     not null collate "C",  -- empty: not priced
  units      varchar     not null collate "C",  -- their names, sorted, with commas between
  calls      bigint      not null,
  quantities numeric[]   not null,              -- in the order of the units
  amount     numeric     not null,
  primary key (tenant_id, user_id, service_id, bucket, currency, units)
) with (fillfactor = 80);
-- The condition holds for every row; only statements that repeat it are offered this index, and never one about a user.
create index usage_totals_of_service on usage_totals (tenant_id, service_id, bucket) where bucket > '-infinity';
