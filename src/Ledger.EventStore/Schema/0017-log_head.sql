-- The position of the newest event, of whatever tenant: a tenant's own connections see its events only.
create function log_head() returns bigint
language plpgsql stable security definer set search_path from current
as $$ begin perform set_config('ledger.all_tenants', 'on', true); return (select coalesce(max(e.seq_id), 0) from mt_events e); end $$;
