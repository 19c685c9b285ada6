-- One row a price of a service, past, present and to come: the view "Services". Rows are never changed.
create table service_prices (
  tenant_id      varchar     not null,
  service_id     varchar     not null collate "C",
  price_version  int         not null,
  currency       varchar     not null,
  effective_from timestamptz not null,
  components     jsonb       not null,
  set_at         timestamptz not null,
  position       bigint      not null,
  primary key (tenant_id, service_id, price_version)
);
create index service_prices_in_force on service_prices (tenant_id, service_id, effective_from desc, price_version desc);
