-- Which summary of a day went out over which channel, and who is at it. No view: the log does not tell it, and a rebuild leaves it alone.
create table campaign_summaries (
  tenant_id varchar     not null,  -- that of the installation, for a summary is of all campaigns
  day       date        not null,
  channel   varchar     not null,  -- mail or webhook
  attempts  integer     not null,
  next_at   timestamptz not null,  -- before this, nobody else tries
  sent_at   timestamptz null,
  error     varchar     null,
  primary key (tenant_id, day, channel)
);
