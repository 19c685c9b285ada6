-- Who was in a segment at an instant is either in it or has ended since: with members that come and go, those are few of all past
-- stays. The condition holds for every row; only statements that repeat it are offered this index.
create index past_memberships_by_end on past_memberships (tenant_id, segment_id, ended_position) where ended_position > 0;
