-- The events that priced or took back a user's calls later: the view "History". The calls themselves are found without a row.
create table history_corrections (
  tenant_id varchar not null,
  user_id   varchar not null collate "C",
  position  bigint  not null,
  primary key (tenant_id, user_id, position)
);
