-- One row a life of a segment: the view "Segments". A slug that is deleted and created again gets a second row.
create table segments (
  tenant_id       varchar       not null,
  segment_id      bigint        not null,  -- the position of its SegmentCreated
  slug            varchar       not null collate "C",
  description     varchar       null,
  rollout_percent numeric(5, 2) not null,
  salt            varchar       not null,
  default_ttl     interval      null,
  created_at      timestamptz   not null,
  deleted_at      timestamptz   null,
  deleted_position bigint       null,
  version         bigint        not null,
  primary key (tenant_id, segment_id)
);
create index segments_by_slug on segments (tenant_id, slug, segment_id desc);
create unique index segments_live on segments (tenant_id, slug) where deleted_at is null;
create index segments_rolled_out on segments (tenant_id) where deleted_at is null and rollout_percent > 0;
