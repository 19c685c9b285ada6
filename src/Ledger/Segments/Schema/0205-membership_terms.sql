-- What a stay's expires_at was before a renewal: the view "Memberships". A stay never renewed has no row.
create table membership_terms (
  tenant_id       varchar     not null,
  user_id         varchar     not null collate "C",
  segment_id      bigint      not null,
  joined_position bigint      not null,
  until_position  bigint      not null,
  until_at        timestamptz not null,
  expires_at      timestamptz null,
  primary key (tenant_id, segment_id, user_id, joined_position, until_position)
);
