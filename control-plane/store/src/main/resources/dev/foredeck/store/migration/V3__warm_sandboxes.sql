-- Sandboxes that nobody has asked for yet. Claiming one deletes its row and makes the sandbox's
-- under the same id, in one transaction: whoever deletes it has it.
create table warm_sandbox (
  id text collate "C" primary key,
  owner text not null,
  template text not null,
  cpu_millis integer not null,
  memory_bytes bigint not null,
  disk_bytes bigint not null,
  pids integer not null,
  policy text not null,
  state text not null,
  boot_id text not null,
  created_at timestamptz not null,
  since timestamptz not null,
  expires_at timestamptz not null
);
create index warm_sandbox_owner on warm_sandbox (owner, id);
