-- What a tenant is called in the log: 16 random bytes, so that its leaves name nobody.
create table log_tenants (
  tenant_id varchar not null primary key,
  pseudonym bytea   not null
);
