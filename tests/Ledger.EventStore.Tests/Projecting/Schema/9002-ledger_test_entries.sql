-- One row an event, without a key: folding anything twice shows.
create table ledger_test_entries (
  position bigint  not null,
  account  varchar not null,
  amount   bigint  not null
);
create index ledger_test_entries_account on ledger_test_entries (account);
