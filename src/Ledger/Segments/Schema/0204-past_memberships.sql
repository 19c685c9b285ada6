-- One row a stay that has ended by leaving or expiring: the view "Memberships".
create table past_memberships (
  tenant_id       varchar     not null,
  user_id         varchar     not null collate "C",
  segment_id      bigint      not null,
  joined_position bigint      not null,
  joined_at       timestamptz not null,
  expires_at      timestamptz null,      -- as it was last set
  source          varchar     not null,
  ended_position  bigint      not null,
  ended_at        timestamptz not null,  -- when it stopped to hold: not later than expires_at
  end_reason      varchar     not null,  -- left, expired
  primary key (tenant_id, segment_id, user_id, joined_position)
);
