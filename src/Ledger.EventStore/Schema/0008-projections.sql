-- What a view's row in mt_event_progression does not say: its state, why it failed, and how far its rebuild is.
create table projections (
  name             varchar     not null primary key,
  state            varchar     not null default 'running' check (state in ('running', 'paused', 'failed')),
  recorded_at      timestamptz null,  -- when the event at the view's position was recorded
  failed_position  bigint      null,
  error            varchar     null,
  rebuild          varchar     null check (rebuild in ('requested', 'running', 'failed')),
  rebuild_position bigint      null,
  rebuild_error    varchar     null,
  rebuilt_at       timestamptz null
) with (fillfactor = 50);
