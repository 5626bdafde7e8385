-- Ids are compared byte by byte (collation C), because their order is the order of time and the
-- partitions' key. Partitions of event, output_chunk and call_artifact are made ahead by the
-- store; what falls outside of them goes to the default partitions.
--
-- Calls are not partitioned: their rows are few beside events and change often, and an update that
-- has to open every partition costs more than deleting old rows does.
--
-- Foreign keys are left out where a row is written on every commit: the store itself checks, under
-- the lock of the log's row.

create table tenant (
  id text collate "C" primary key,
  name text not null unique
);

create table api_key (
  id text collate "C" primary key,
  tenant text collate "C" not null,
  name text not null,
  role text not null,
  sha256 text not null unique,
  created_at timestamptz not null,
  revoked_at timestamptz
);
create index api_key_tenant on api_key (tenant, id);

-- One row a log: its lock is the lock of all that belongs to the sandbox, and seq comes from it.
create table log (
  sandbox text collate "C" primary key,
  last_seq bigint not null
) with (fillfactor = 50);

create table sandbox (
  id text collate "C" primary key,
  tenant text collate "C" not null,
  owner text not null,
  template text not null,
  cpu_millis integer not null,
  memory_bytes bigint not null,
  disk_bytes bigint not null,
  pids integer not null,
  policy text not null,
  env json not null,
  labels jsonb not null,
  network_allow json,
  destroy_on_exit boolean not null,
  phase text not null,
  reason text not null,
  boot_id text not null,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  ended_at timestamptz
) with (fillfactor = 70);
create index sandbox_tenant on sandbox (tenant, id);
create index sandbox_labels on sandbox using gin (labels jsonb_path_ops);
create index sandbox_live_of_tenant on sandbox (tenant) where phase not in ('gone', 'failed');
create index sandbox_live_of_owner on sandbox (owner) where phase not in ('gone', 'failed');

create table sandbox_file (
  sandbox text collate "C" not null,
  position integer not null,
  path text not null,
  bytes bytea not null,
  primary key (sandbox, position)
);

create table call (
  id text collate "C" primary key,
  sandbox text collate "C" not null,
  tenant text collate "C" not null,
  tool text not null,
  arguments text not null,
  digest text not null,
  principal text collate "C" not null,
  background boolean not null,
  outputs json not null,
  destroys_sandbox boolean not null,
  status text not null,
  requested_at timestamptz not null,
  deadline timestamptz not null,
  started_at timestamptz,
  pid bigint not null,
  stdout_bytes bigint not null,
  stderr_bytes bigint not null,
  stdout_recorded bigint not null,
  stderr_recorded bigint not null,
  truncated boolean not null,
  exit_code integer,
  signal integer,
  end_reason text,
  cpu_micros bigint,
  peak_memory_bytes bigint,
  wall_millis bigint,
  output_bytes bigint,
  ended_at timestamptz
) with (fillfactor = 70);
create index call_live on call (sandbox, id) where status in ('pending', 'running');

create table event (
  sandbox text collate "C" not null,
  seq bigint not null,
  time timestamptz not null,
  type text not null,
  call text collate "C",
  -- Text, because jsonb refuses a NUL that an argument may well hold.
  data text not null,
  primary key (sandbox, seq)
) partition by range (sandbox);
create table event_default partition of event default;

create table output_chunk (
  call text collate "C" not null,
  channel text not null,
  "offset" bigint not null,
  bytes bytea not null,
  primary key (call, channel, "offset")
) partition by range (call);
-- Out of line and not compressed: a range of a chunk is read without the rest, and compressing
-- costs more than half of the throughput.
alter table output_chunk alter column bytes set storage external;
create table output_chunk_default partition of output_chunk default;

create table call_artifact (
  call text collate "C" not null,
  path text collate "C" not null,
  size_bytes bigint not null,
  sha256 text not null,
  bytes bytea not null,
  primary key (call, path)
) partition by range (call);
alter table call_artifact alter column bytes set storage external;
create table call_artifact_default partition of call_artifact default;

create table idempotency_key (
  tenant text collate "C" not null,
  route text not null,
  key text not null,
  body_hash text not null,
  sandbox text collate "C" not null,
  call text collate "C",
  claimed_at timestamptz not null,
  primary key (tenant, route, key)
);
create index idempotency_key_age on idempotency_key (claimed_at);

create table policy_version (
  name text not null,
  version text not null,
  bundle text not null,
  primary key (name, version)
);

-- One row a committer: the number of its last batch. A committer that lost its connection while it
-- committed reads here whether the batch is durable.
create table committer (
  id text primary key,
  batch bigint not null,
  at timestamptz not null
) with (fillfactor = 20);
