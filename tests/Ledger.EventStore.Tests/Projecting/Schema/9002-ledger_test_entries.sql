-- One row an event: folding anything twice is refused.
create table ledger_test_entries (
  position bigint  not null primary key,
  account  varchar not null,
  amount   bigint  not null
);
create index ledger_test_entries_account on ledger_test_entries (account);
