-- The events that may move users in or out without an event of the user: the view "History". One row a life's beginning, change
-- of its roll-out, or end.
create table history_rollouts (
  tenant_id      varchar       not null,
  position       bigint        not null,
  slug           varchar       not null collate "C",
  segment_id     bigint        not null,  -- the position of the life's SegmentCreated
  salt           varchar       not null,
  percent_before numeric(5, 2) not null,
  percent        numeric(5, 2) not null,
  deleted        boolean       not null,
  at             timestamptz   not null,
  primary key (tenant_id, position)
);
create index history_rollouts_of_segment on history_rollouts (tenant_id, slug, position);
