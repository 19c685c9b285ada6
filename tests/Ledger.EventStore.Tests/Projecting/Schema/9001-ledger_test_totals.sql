-- The sums of a view that adds up in place: folding anything twice shows.
create table ledger_test_totals (
  view    varchar not null,
  account varchar not null,
  amount  bigint  not null,
  events  bigint  not null,
  primary key (view, account)
);
