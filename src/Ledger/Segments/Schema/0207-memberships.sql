-- A user's memberships lie wherever each segment's are: with all of them in the index, they are one page, and not one each.
create index memberships_of_user on memberships (tenant_id, user_id, segment_id) include (joined_position, joined_at, expires_at, source);
drop index memberships_by_user;
