-- Messages that a node has taken to send, until the view knows what became of them. No view: a row is removed once its outcome
-- is recorded and folded; one whose lease has run out tells of a node that died.
create table campaign_sends (
  tenant_id         varchar     not null,
  campaign_id       uuid        not null,
  user_id           varchar     not null collate "C",
  attempt           int         not null,
  leased_until      timestamptz not null,  -- by the database's clock
  recorded_position bigint      null,      -- of the outcome
  primary key (tenant_id, campaign_id, user_id)
);
create index campaign_sends_leased on campaign_sends (leased_until) where recorded_position is null;
create index campaign_sends_recorded on campaign_sends (recorded_position) where recorded_position is not null;
