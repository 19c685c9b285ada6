-- Which node runs the daemon, on the database's clock. The epoch fences: it is checked in every transaction of the daemon.
create table daemon_lease (
  name       varchar     not null primary key,
  holder     varchar     not null,
  epoch      bigint      not null,
  expires_at timestamptz not null
) with (fillfactor = 50);
