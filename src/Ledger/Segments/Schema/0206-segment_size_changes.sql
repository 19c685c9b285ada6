-- By how much a segment grew in an interval of time, at several widths: the view "Memberships". Level 0 is the exact
-- microsecond, each level above is 64 times as wide, from 2^20 microseconds on. A stay counts +1 when it begins and -1 when
-- it ends or is to expire, so the size at any instant, past or to come, is a sum over a few hundred rows at most.
create table segment_size_changes (
  tenant_id  varchar  not null,
  segment_id bigint   not null,
  level      smallint not null,
  bucket     bigint   not null,  -- microseconds since 1970, divided by the level's width
  net        bigint   not null,
  primary key (tenant_id, segment_id, level, bucket)
) with (fillfactor = 70);
