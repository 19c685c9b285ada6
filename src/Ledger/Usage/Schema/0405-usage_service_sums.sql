-- What the quarters of usage_service_totals come to in an hour and in a day of UTC, for questions over a long time: the view
-- "UsageTotals".
create table usage_service_sums (
  tenant_id  varchar     not null,
  service_id varchar     not null collate "C",
  minutes    smallint    not null,  -- how wide the bucket is: 60 or 1440
  bucket     timestamptz not null,
  currency   varchar     not null collate "C",
  units      varchar     not null collate "C",
  calls      bigint      not null,
  quantities numeric[]   not null,
  amount     numeric     not null,
  primary key (tenant_id, service_id, minutes, bucket, currency, units)
) with (fillfactor = 70);
-- Of the quarters that are there already.
insert into usage_service_sums
select s.tenant_id, s.service_id, s.minutes, s.bucket, s.currency, s.units, s.calls,
  array(
    select sum(q.quantity)
    from usage_service_totals t cross join lateral unnest(t.quantities) with ordinality q (quantity, place)
    where t.tenant_id = s.tenant_id and t.service_id = s.service_id and t.bucket >= s.bucket and t.bucket < s.bucket + s.minutes * interval '1 minute'
      and t.currency = s.currency and t.units = s.units
    group by q.place order by q.place),
  s.amount
from (
  select t.tenant_id, t.service_id, w.minutes, date_bin(w.minutes * interval '1 minute', t.bucket, 'epoch') as bucket, t.currency, t.units,
    sum(t.calls) as calls, sum(t.amount) as amount
  from usage_service_totals t cross join (values (60::smallint), (1440::smallint)) w (minutes)
  group by 1, 2, 3, 4, 5, 6
) s;
