-- How many outcomes of a campaign's messages were recorded in an hour of UTC: the view "Campaigns".
create table campaign_hours (
  tenant_id   varchar     not null,
  campaign_id uuid        not null,
  hour        timestamptz not null,
  sent        bigint      not null,
  deferred    bigint      not null,
  failed      bigint      not null,
  unknown     bigint      not null,
  suppressed  bigint      not null,
  primary key (tenant_id, campaign_id, hour)
);
