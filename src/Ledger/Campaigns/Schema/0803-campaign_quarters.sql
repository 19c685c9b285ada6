-- How many outcomes of a campaign's messages were recorded in a quarter of an hour of UTC: the view "Campaigns".
create table campaign_quarters (
  tenant_id   varchar     not null,
  campaign_id uuid        not null,
  quarter     timestamptz not null,
  sent        bigint      not null,
  deferred    bigint      not null,
  failed      bigint      not null,
  unknown     bigint      not null,
  suppressed  bigint      not null,
  primary key (tenant_id, campaign_id, quarter)
);
