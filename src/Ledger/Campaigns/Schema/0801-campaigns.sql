-- One row a campaign, with its messages counted by status: the view "Campaigns". What is pending once a campaign is over has
-- expired or was cancelled; no row says so.
create table campaigns (
  tenant_id         varchar     not null,
  campaign_id       uuid        not null,
  phase             varchar     not null,
  is_paused         boolean     not null,
  plan              jsonb       not null,
  starts_at         timestamptz not null,
  ends_at           timestamptz not null,
  created_position  bigint      not null,
  created_at        timestamptz not null,
  started_at        timestamptz null,
  audience_position bigint      null,
  recipients        bigint      null,      -- null until all are recorded
  ended_at          timestamptz null,
  error             varchar     null,
  error_users       varchar[]   null,
  version           bigint      not null,
  parts             int         not null,  -- of the audience, recorded so far
  pinned_up_to      varchar     not null collate "C",
  retry_position    bigint      null,      -- a retry was asked for
  retry_parts       int         not null,
  retried_up_to     varchar     null collate "C",  -- null once it is through
  pending           bigint      not null,
  sent              bigint      not null,
  failed            bigint      not null,
  unknown           bigint      not null,
  suppressed        bigint      not null,
  resending         bigint      not null,  -- of the unknown, those that are sent again
  primary key (tenant_id, campaign_id)
);
create index campaigns_by_creation on campaigns (tenant_id, created_position);
create index campaigns_active on campaigns (ends_at) where phase in ('scheduled', 'starting', 'running');
