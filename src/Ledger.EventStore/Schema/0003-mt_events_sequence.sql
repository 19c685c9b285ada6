-- Marten 9: kept at the head by the appender, which numbers events itself; a sequence is not transactional.
create sequence mt_events_sequence owned by mt_events.seq_id;
