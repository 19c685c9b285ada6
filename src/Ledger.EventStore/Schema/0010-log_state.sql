-- The transparency log, one a database: how many events are leaves of it and their root, which key signs it, and what it has
-- promised to sign. A size is reserved with its root before it is signed, and never becomes smaller.
create table log_state (
  name          varchar not null primary key,
  id            uuid    not null,  -- of this log: a copy of the database has it too, another log never
  origin        varchar not null,
  size          bigint  not null,
  root          bytea   not null check (length(root) = 32),
  key           varchar null,      -- the verification key of the one that signs
  reserved_size bigint  null,
  reserved_root bytea   null,
  refusal       varchar null       -- why no checkpoint is signed any more
) with (fillfactor = 50);
