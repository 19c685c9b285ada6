-- The latest signed checkpoint of the log: what everybody is shown.
create table log_checkpoint (
  name         varchar     not null primary key,
  size         bigint      not null,
  root         bytea       not null check (length(root) = 32),
  note         bytea       not null,
  published_at timestamptz not null
) with (fillfactor = 50);
