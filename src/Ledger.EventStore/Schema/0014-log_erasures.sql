-- Events whose payload and salt were erased: what their leaf commits to, which can't be computed any more.
create table log_erasures (
  position    bigint      not null primary key,
  commitments bytea       not null,
  erased_at   timestamptz not null default now()
);
