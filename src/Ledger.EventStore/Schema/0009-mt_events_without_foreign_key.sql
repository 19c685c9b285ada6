-- Every event's stream is written in the same transaction, by the only writer there is; looking each one up again takes two
-- thirds of the time of storing an event (docs/adr/0009). Marten has no such key either where it partitions by tenant.
alter table mt_events drop constraint fkey_mt_events_stream_id_tenant_id;
