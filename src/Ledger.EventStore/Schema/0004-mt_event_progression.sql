-- Marten 9: how far each view has read the log, one row a view, named <View>:All.
create table mt_event_progression (
  name         varchar     not null,
  last_seq_id  bigint      null,
  last_updated timestamptz null default transaction_timestamp(),
  constraint pk_mt_event_progression primary key (name)
) with (fillfactor = 50);
