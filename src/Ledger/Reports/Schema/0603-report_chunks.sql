-- The files of reports, in pieces. No view: they are made of the log once, and made again should they be missing.
create table report_chunks (
  tenant_id          varchar not null,
  requested_position bigint  not null,
  number             int     not null,
  content            bytea   not null,
  primary key (tenant_id, requested_position, number)
);
