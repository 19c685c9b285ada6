-- How many messages of a campaign may be taken at this moment, over all nodes; whoever takes some holds the row. No view.
create table campaign_rates (
  tenant_id   varchar          not null,
  campaign_id uuid             not null,
  tokens      double precision not null,
  filled_at   timestamptz      not null,  -- by the database's clock
  primary key (tenant_id, campaign_id)
);
