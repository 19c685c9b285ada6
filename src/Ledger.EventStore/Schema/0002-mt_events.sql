-- Marten 9: the log. seq_id is the position; it is dense, and its order is the order of commit.
create table mt_events (
  seq_id         bigint       not null,
  id             uuid         not null,
  stream_id      varchar      null,
  version        bigint       not null,
  data           jsonb        not null,
  bdata          bytea        null,
  type           varchar(500) not null,
  timestamp      timestamptz  not null default now(),
  tenant_id      varchar      null default '*DEFAULT*',
  mt_dotnet_type varchar      null,
  correlation_id varchar      null,
  causation_id   varchar      null,
  headers        jsonb        null,
  user_name      varchar      null,
  is_archived    boolean      null default false,
  constraint pkey_mt_events_seq_id primary key (seq_id),
  constraint fkey_mt_events_stream_id_tenant_id foreign key (tenant_id, stream_id) references mt_streams (tenant_id, id)
);
create unique index pk_mt_events_stream_and_version on mt_events (tenant_id, stream_id, version);
-- The event id is the idempotency key: one event per id, for ever (Marten: EnableUniqueIndexOnEventId).
create unique index idx_mt_events_event_id on mt_events (id);
