-- The random salts of 256 events a row, 16 bytes each. Zeros where an event was erased.
create table log_salts (
  bundle bigint not null primary key,
  salts  bytea  not null
) with (fillfactor = 90);
alter table log_salts alter column salts set storage external;
