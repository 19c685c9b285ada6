-- One row a stay that has not ended by leaving or expiring: the view "Memberships". What has run out by its expires_at, or
-- whose segment is deleted, is not a membership any more, whether or not its row is still here.
create table memberships (
  tenant_id       varchar     not null,
  user_id         varchar     not null collate "C",
  segment_id      bigint      not null,
  joined_position bigint      not null,
  joined_at       timestamptz not null,
  expires_at      timestamptz null,
  source          varchar     not null,
  primary key (tenant_id, segment_id, user_id)
) with (fillfactor = 90);
create index memberships_by_user on memberships (tenant_id, user_id);
create index memberships_expiring on memberships (tenant_id, segment_id, expires_at) where expires_at is not null;
