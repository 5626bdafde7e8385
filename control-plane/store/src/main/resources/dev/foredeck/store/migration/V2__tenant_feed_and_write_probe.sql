-- A tenant's feed: all events of all its logs in one order that a reader can follow by cursor. seq
-- orders a log; between logs the order is that of the transactions that wrote them (docs/decisions/0004).
--
-- Events from before this migration have no place in it: they are read by their sandbox's feed.

alter table log add column tenant text collate "C";
update log set tenant = s.tenant from sandbox s where s.id = log.sandbox;

-- tx: event_order.base and the id of the writing transaction. Null together, where a log has no
-- sandbox.
alter table event add column tenant text collate "C";
alter table event add column tx bigint;
-- Not the whole order: the events of one transaction are few, and an index on their number alone
-- stays small, because equal keys are stored once.
create index event_of_tenant on event (tenant, tx);

-- One row. A database that was restored into another cluster goes on with transaction ids that are
-- lower than those of its events; base lifts them above.
create table event_order (
  only_row boolean primary key default true check (only_row),
  cluster bigint not null,
  base bigint not null
);
insert into event_order (cluster, base) select system_identifier, 0 from pg_control_system();

-- The last seq of its log before it was made: a reader of one call begins there.
alter table call add column log_before bigint not null default 0;

-- Written to see whether anything can be written.
create table write_probe (bytes bytea not null);
alter table write_probe alter column bytes set storage external;
