-- One row a recipient of a campaign: the view "Campaigns". Those with a due_at are the queue.
create table campaign_messages (
  tenant_id   varchar     not null,
  campaign_id uuid        not null,
  user_id     varchar     not null collate "C",
  phone       varchar     null,
  time_zone   varchar     not null collate "C",
  fillings    jsonb       null,      -- what the placeholders of the text stand for
  status      varchar     not null,
  attempts    int         not null,
  base        int         not null,  -- attempts when it was last asked for again
  due_at      timestamptz null,      -- when it may leave, unless it is settled
  error       varchar     null,
  status_code int         null,
  sent_at     timestamptz null,
  position    bigint      not null,  -- of the event that told last of it
  primary key (tenant_id, campaign_id, user_id)
);
create index campaign_messages_due on campaign_messages (tenant_id, campaign_id, time_zone, due_at, user_id) where due_at is not null;
create index campaign_messages_settled on campaign_messages (tenant_id, campaign_id, status, user_id) where status <> 'pending';
