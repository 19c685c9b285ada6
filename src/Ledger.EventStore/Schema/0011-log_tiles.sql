-- The hashes of the log's tree, 256 a row; a row grows until it is full, and what stands in it never changes.
create table log_tiles (
  level  int    not null,
  index  bigint not null,
  hashes bytea  not null,
  primary key (level, index)
) with (fillfactor = 90);
alter table log_tiles alter column hashes set storage external; -- hashes don't compress
