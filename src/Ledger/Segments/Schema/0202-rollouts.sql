-- What share of all users a segment took in, and since when: the view "Segments".
create table rollouts (
  tenant_id  varchar       not null,
  segment_id bigint        not null,
  position   bigint        not null,
  since      timestamptz   not null,
  percent    numeric(5, 2) not null,
  primary key (tenant_id, segment_id, position)
);
