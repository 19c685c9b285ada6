-- Every key that has signed checkpoints of the log, the newest with the highest number.
create table log_keys (
  number   bigint      not null primary key,
  key      varchar     not null unique,
  added_at timestamptz not null default now()
);
