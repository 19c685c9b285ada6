-- How many calls of a service wait for a price, and why: the view "Calls". A row is there when there are such calls.
create table unpriced_calls (
  tenant_id  varchar not null,
  service_id varchar not null collate "C",
  reason     varchar not null collate "C",
  calls      bigint  not null,
  primary key (tenant_id, service_id, reason)
) with (fillfactor = 70);
