-- One row a user: the view "Users".
create table users (
  tenant_id     varchar     not null,
  user_id       varchar     not null collate "C",
  registered_at timestamptz not null,
  attributes    jsonb       not null default '{}',
  version       bigint      not null,  -- of the user's stream, when the attributes were last set
  primary key (tenant_id, user_id)
);
