-- When the event at a position was recorded, of whatever tenant; null where the log does not reach. It tells nothing else of it.
create function log_recorded_at(wanted bigint) returns timestamptz
language plpgsql stable security definer set search_path from current
as $$ begin perform set_config('ledger.all_tenants', 'on', true); return (select e.timestamp from mt_events e where e.seq_id = wanted); end $$;
