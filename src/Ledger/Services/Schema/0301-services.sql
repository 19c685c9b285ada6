-- One row a service: the view "Services".
create table services (
  tenant_id           varchar     not null,
  service_id          varchar     not null collate "C",
  title               varchar     not null,
  description         varchar     null,
  registered_at       timestamptz not null,
  registered_position bigint      not null,
  retired_at          timestamptz null,
  version             bigint      not null,
  primary key (tenant_id, service_id)
);
create index services_current on services (tenant_id, service_id) where retired_at is null;
