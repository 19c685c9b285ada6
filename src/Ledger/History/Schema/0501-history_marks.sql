-- Which events a filter lets pass: the view "History". The log itself is the history; this is its index. A row stands for 256
-- positions, block * 256 + 1 and on, one bit each, the lowest bit of b0 first. So it costs a row a value and block, not an event.
create table history_marks (
  tenant_id varchar not null,
  dimension varchar not null collate "C",  -- all, kind, segment, service or actor
  value     varchar not null collate "C",
  block     bigint  not null,
  b0        bigint  not null,
  b1        bigint  not null,
  b2        bigint  not null,
  b3        bigint  not null,
  primary key (tenant_id, dimension, value, block)
) with (fillfactor = 70);
