-- Expiries that were recorded in a later month than the one they happened in: the view "Reports". There are few: the sweeper is
-- seconds behind.
create table report_late_expiries (
  tenant_id varchar not null,
  month     date    not null,  -- in which it happened
  position  bigint  not null,
  primary key (tenant_id, month, position)
);
