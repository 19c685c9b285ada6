-- The sums of a view that adds up in place: folding anything twice shows.
create table ledger_test_totals (
  account varchar not null primary key,
  amount  bigint  not null,
  events  bigint  not null
);
