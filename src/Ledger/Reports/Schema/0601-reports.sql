-- One row a report that was asked for and not deleted: the view "Reports".
create table reports (
  tenant_id          varchar     not null,
  report_id          varchar     not null collate "C",
  kind               varchar     not null,
  month              date        not null,
  user_id            varchar     null collate "C",
  status             varchar     not null,  -- pending, ready or failed
  requested_position bigint      not null,
  requested_at       timestamptz not null,
  position           bigint      null,      -- the last event it takes into account
  rows               bigint      null,
  bytes              bigint      null,
  sha256             varchar     null,
  error              varchar     null,
  version            bigint      not null,
  primary key (tenant_id, report_id)
);
create index reports_by_request on reports (tenant_id, requested_position);
create index reports_pending on reports (requested_position) where status = 'pending';
