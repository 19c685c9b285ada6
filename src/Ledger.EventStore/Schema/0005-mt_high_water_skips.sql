-- Marten 9: skipped ranges of positions. Ours are dense, so this stays empty.
create table mt_high_water_skips (
  ending_sequence   bigint      not null,
  starting_sequence bigint      not null,
  timestamp         timestamptz null default transaction_timestamp(),
  constraint pkey_mt_high_water_skips_ending_sequence primary key (ending_sequence)
);
