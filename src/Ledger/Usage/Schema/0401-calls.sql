-- One row a call: the view "Calls". What else there is to know of a call is in its event, at this position. A call that was
-- recorded with a price adds an entry to the primary key and to two more indexes; only one that was not, or was taken back,
-- is in the partial ones. Nobody's calls alone have an index of their own: they are merged over the services that the user
-- has called, which are found by skipping along the primary key.
create table calls (
  tenant_id       varchar     not null,
  user_id         varchar     not null collate "C",
  service_id      varchar     not null collate "C",
  occurred_at     timestamptz not null,
  position        bigint      not null,
  status          varchar     not null,  -- priced, unpriced or voided
  amount          numeric     null,      -- of a voided call, what it counted until then
  currency        varchar     null,
  price_version   int         null,
  unpriced_reason varchar     null,
  priced_position bigint      null,      -- of the event that priced it later
  voided_position bigint      null,      -- of the event that took it back
  primary key (tenant_id, user_id, service_id, occurred_at, position)
);
-- An index whose condition a statement does not repeat is not offered to it. Those on positions hold for every call: they make
-- sure that a plan never rests on a wrong index, which looks as good as the right one while the table is small.
create index calls_of_service on calls (tenant_id, service_id, occurred_at, position) where position < 9223372036854775807;
create index calls_by_time on calls (tenant_id, occurred_at, position) where position > 0;
create index calls_not_priced_of_user on calls (tenant_id, user_id, status, service_id, occurred_at, position) where status <> 'priced';
create index calls_not_priced_of_service on calls (tenant_id, service_id, status, occurred_at, position)
  where status <> 'priced' and position < 9223372036854775807;
create index calls_not_priced_by_time on calls (tenant_id, status, occurred_at, position) where status <> 'priced' and position > 0;
