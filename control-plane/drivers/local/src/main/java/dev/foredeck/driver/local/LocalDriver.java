package dev.foredeck.driver.local;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.core.egress.EgressPath;
import dev.foredeck.driver.host.AgentSettings;
import dev.foredeck.driver.host.AgentSockets;
import dev.foredeck.driver.host.Berths;
import dev.foredeck.driver.host.Canary;
import dev.foredeck.driver.host.Command;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.Folder;
import dev.foredeck.driver.host.HostPlaces;
import dev.foredeck.driver.host.KernelTables;
import dev.foredeck.driver.host.Launches;
import dev.foredeck.driver.host.Records;
import dev.foredeck.driver.host.SandboxLocks;
import dev.foredeck.driver.host.Step;
import dev.foredeck.driver.host.Trees;
import dev.foredeck.driver.host.UidSlots;
import dev.foredeck.driver.host.WritablePlaces;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.UnaryOperator;
import java.util.random.RandomGenerator;

/// Sandboxes on this host: an OCI bundle each, run by `runc` or gVisor's `runsc` as root.
///
/// Nothing that matters is held in memory: which sandboxes there are is what the kernel and the
/// folders say, so a control plane that starts after a crash adopts them all. One verb at a time
/// changes a sandbox (`locks`); reading needs no lock. Invariant: whatever a launch makes is found
/// by [#list] under the sandbox's id, at every point of a launch and of a destroy.
public final class LocalDriver implements Driver {
  private static final int AGENT_LOG_TAIL = 4096;

  /// While somebody waits for an agent, how often its process is looked at.
  private static final long WATCH_MILLIS = 20;

  private final LocalConfig config;
  private final HostPlaces places;
  private final RandomGenerator random;
  private final Step.Observer observer;
  private final UnaryOperator<ObjectNode> tamper;
  private final HostTemplate template;
  private final AgentSockets sockets;
  private final Berths berths;
  private final Launches launches;
  private final SandboxLocks locks = new SandboxLocks();

  /// Why no sandbox with a kernel of its own can be launched; empty when the probe has shown that
  /// it can.
  private volatile String strongRefusal = "the driver has not been probed";

  /// While it is true the canary is somebody's, and no orphan.
  private volatile boolean probing;

  /// @param random for the probe's token; a secure one outside tests
  public LocalDriver(LocalConfig config, RandomGenerator random) {
    this(config, random, Step.Observer.NONE, UnaryOperator.identity());
  }

  /// @param observer may throw, as a control plane that dies there
  /// @param tamper changes each runtime configuration, so that tests can break what it promises
  LocalDriver(
      LocalConfig config,
      RandomGenerator random,
      Step.Observer observer,
      UnaryOperator<ObjectNode> tamper) {
    this.config = config;
    this.places = config.places();
    this.random = random;
    this.observer = observer;
    this.tamper = tamper;
    this.template = new HostTemplate(Path.of("/"), config.roots());
    this.sockets = new AgentSockets(places);
    this.berths = new Berths(places, sockets);
    this.launches = new Launches(places, sockets, WATCH_MILLIS, this::howItEnded);
  }

  @Override
  public String name() {
    return "local";
  }

  @Override
  public List<String> templates() {
    return List.of(HostTemplate.NAME);
  }

  @Override
  public List<String> probe(Duration timeout) {
    Deadline deadline = Deadline.in(timeout);
    probing = true;
    try {
      List<String> findings = new Probe(this, config, config.runtime(), random).run(deadline);
      if (config.runtime().equals(config.strongRuntime())) {
        strongRefusal = String.join(" ", findings);
      } else if (findings.isEmpty()) {
        // What only some policies demand does not keep the others from running.
        strongRefusal =
            String.join(" ", new Probe(this, config, config.strongRuntime(), random).run(deadline));
      }
      return findings;
    } finally {
      probing = false;
    }
  }

  @Override
  public void launch(LaunchSpec spec, Duration timeout) throws DriverException {
    Deadline deadline = Deadline.in(timeout);
    if (!spec.template().equals(HostTemplate.NAME)) {
      throw new DriverException.Refused(
          "the local driver has no template " + spec.template() + ", only " + HostTemplate.NAME);
    }
    if (spec.boundary().isolation() == Isolation.STRONG
        && !strongRefusal.isEmpty()
        && !spec.sandbox().equals(Canary.ID)) {
      throw new DriverException.Refused(
          "the local driver cannot give isolation strong (boundary.isolation) on this host: "
              + strongRefusal);
    }
    WritablePlaces.check(spec.resources(), spec.boundary());
    WritablePlaces writable = WritablePlaces.of(spec.boundary());
    Id id = spec.sandbox();
    locks.locked(
        id,
        deadline,
        "launch " + id,
        () ->
            launches.launch(
                id,
                () -> {
                  // What an earlier launch began is not trusted to be whole.
                  if (exists(id)) {
                    remove(id, deadline, Step.Observer.NONE);
                  }
                  build(spec, writable, deadline);
                }));
  }

  private void build(LaunchSpec spec, WritablePlaces writable, Deadline deadline)
      throws IOException, DriverException {
    Id id = spec.sandbox();
    Folder folder = places.folder(id);
    List<String> agent = Files.readAllLines(places.agentBundle().resolve("argv"));
    Cgroups cgroups = Cgroups.detect(config.cgroupParent());

    int firstUid = UidSlots.firstUid(berths.take(spec, observer, deadline));
    berths.furnish(spec, firstUid + OciConfig.USER, observer, deadline);

    HostPlaces.makeEnterable(config.roots());
    HostTemplate.Skeleton skeleton = template.ensure();
    ObjectNode oci =
        OciConfig.of(
            new OciConfig.Spec(
                skeleton.root(),
                skeleton.binds(),
                places.agentBundle(),
                places.socketFolder(id),
                folder.workspace(),
                agent,
                AgentSettings.environment(spec),
                firstUid,
                cgroups.runtimePath(id),
                cgroups.limitsSwap(),
                AgentSettings.openFiles(),
                runtimeOf(spec).hasItsOwnKernel(),
                writable,
                spec.resources()));
    Records.write(
        folder.bundle().resolve("config.json"),
        OciConfig.JSON.writeValueAsBytes(tamper.apply(oci)));
    observer.reached(Step.PREPARED);

    start(runtimeOf(spec), id, folder, deadline);
    observer.reached(Step.STARTED);
    launches.record(id, Long.parseLong(Files.readString(pidFile(folder)).strip()));
    observer.reached(Step.RECORDED);
  }

  private void start(OciRuntime runtime, Id id, Folder folder, Deadline deadline)
      throws DriverException.Failed {
    Path log = folder.path().resolve("runtime.log");
    Command.Result result =
        Command.detach(
            deadline,
            folder.agentLog(),
            runtime.start(
                config.runtimeState(), log, folder.bundle(), pidFile(folder), id.value()));
    if (!result.succeeded()) {
      throw new DriverException.Failed(
          runtime.program()
              + " cannot start "
              + id
              + ": "
              + Command.lastLine(KernelTables.readIfPresent(log).orElse("it says nothing")));
    }
  }

  private OciRuntime runtimeOf(LaunchSpec spec) {
    return switch (spec.boundary().isolation()) {
      case STANDARD -> config.runtime();
      case STRONG -> config.strongRuntime();
    };
  }

  private static Path pidFile(Folder folder) {
    return folder.path().resolve("pid");
  }

  @Override
  public void destroy(Id sandbox, Duration timeout) throws DriverException {
    Deadline deadline = Deadline.in(timeout);
    locks.locked(
        sandbox,
        deadline,
        "destroy " + sandbox,
        () -> {
          if (exists(sandbox)) {
            remove(sandbox, deadline, observer);
          }
        });
  }

  /// Undoes every step of a launch, whichever of them were done.
  private void remove(Id id, Deadline deadline, Step.Observer observer)
      throws IOException, DriverException {
    Folder folder = places.folder(id);
    KernelTables.endRootProcessesNaming(folder.path(), deadline);
    // By its record first: a runtime that has ignored the cgroup leaves it outside of that.
    Optional<Records.Identity> recorded = launches.process(id);
    if (recorded.isPresent() && recorded.get().isAlive()) {
      ProcessHandle.of(recorded.get().pid()).ifPresent(ProcessHandle::destroyForcibly);
    }
    Cgroups cgroups = Cgroups.detect(config.cgroupParent());
    cgroups.kill(id, deadline);
    observer.reached(Step.ENDED);
    // What its runtime did is undone here, step by step: the record is the runtime's own, and of
    // use to nobody else.
    Trees.delete(config.runtimeState().resolve(id.value()));
    observer.reached(Step.FORGOTTEN);
    cgroups.remove(id, deadline);
    observer.reached(Step.CGROUPS_REMOVED);
    berths.clear(id, observer, deadline);
    launches.forget(id);
  }

  private boolean exists(Id id) throws IOException {
    return berths.exists(id)
        || Files.exists(config.runtimeState().resolve(id.value()))
        || Cgroups.detect(config.cgroupParent()).exists(id);
  }

  @Override
  public Optional<BackendState> inspect(Id sandbox, Duration timeout) throws DriverException {
    try {
      Optional<BackendState> state = launches.state(sandbox);
      return state.isEmpty() && exists(sandbox) ? Optional.of(Launches.remains(sandbox)) : state;
    } catch (IOException e) {
      throw SandboxLocks.failed("look at " + sandbox, e);
    }
  }

  @Override
  public List<BackendState> list(Duration timeout) throws DriverException {
    try {
      Set<Id> ids = berths.ids();
      ids.addAll(HostPlaces.named(config.runtimeState()));
      ids.addAll(Cgroups.detect(config.cgroupParent()).list());
      List<BackendState> states = new ArrayList<>();
      for (Id id : ids) {
        if (!id.equals(Canary.ID) || !probing) {
          states.add(launches.state(id).orElse(Launches.remains(id)));
        }
      }
      return states;
    } catch (IOException e) {
      throw SandboxLocks.failed("list the sandboxes", e);
    }
  }

  private String howItEnded(Id id) throws IOException {
    long kills = Cgroups.detect(config.cgroupParent()).of(id).outOfMemoryKills();
    String memory =
        kills == 0 ? "" : " (the memory limit was reached: " + kills + " processes were killed)";
    return "its agent's process has ended" + memory + agentSaid(places.folder(id));
  }

  /// The agent's last line. It comes from inside the sandbox: bounded, and without control
  /// characters.
  private static String agentSaid(Folder folder) {
    try (FileChannel log = FileChannel.open(folder.agentLog(), StandardOpenOption.READ)) {
      long from = Math.max(0, log.size() - AGENT_LOG_TAIL);
      java.nio.ByteBuffer tail = java.nio.ByteBuffer.allocate(AGENT_LOG_TAIL);
      log.read(tail, from);
      String line =
          Command.lastLine(new String(tail.array(), 0, tail.position(), StandardCharsets.UTF_8));
      return line.isEmpty() ? "" : "; it said: " + line;
    } catch (IOException _) {
      return "";
    }
  }

  @Override
  public AgentConnection connect(Id sandbox, String token, Duration timeout)
      throws DriverException {
    return launches.connect(sandbox, token, Deadline.in(timeout));
  }

  @Override
  public Optional<EgressPath> egressPath(Id sandbox, String token) {
    return Optional.of(
        new EgressPath.UnixSocket(places.socketFolder(sandbox).resolve("egress.sock")));
  }

  /// The host's number of the sandbox's first process.
  long pid(Id sandbox) throws IOException, DriverException.NotThere {
    return launches
        .process(sandbox)
        .orElseThrow(() -> new DriverException.NotThere("no sandbox " + sandbox + " is launched"))
        .pid();
  }

  /// The number of the sandbox's user range.
  int slot(Id sandbox) throws IOException, DriverException.NotThere {
    return berths
        .slot(sandbox)
        .orElseThrow(() -> new DriverException.NotThere("no sandbox " + sandbox));
  }

  @Override
  public void close() {
    sockets.close();
    config.places().removeEmptyRunFolders();
    try {
      Cgroups.detect(config.cgroupParent()).removeParents();
    } catch (IOException _) {
      // An empty cgroup costs nothing, and the next close tries again.
    }
  }
}
