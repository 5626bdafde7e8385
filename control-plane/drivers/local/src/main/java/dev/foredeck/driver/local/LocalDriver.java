package dev.foredeck.driver.local;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Hashes;
import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.core.egress.EgressPath;
import dev.foredeck.driver.host.AgentSocket;
import dev.foredeck.driver.host.Command;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.Disk;
import dev.foredeck.driver.host.Folder;
import dev.foredeck.driver.host.KernelTables;
import dev.foredeck.driver.host.Records;
import dev.foredeck.driver.host.Trees;
import dev.foredeck.driver.host.UidSlots;
import dev.foredeck.driver.host.WritablePlaces;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.UnaryOperator;
import java.util.random.RandomGenerator;

/// Sandboxes on this host: an OCI bundle each, run by `runc` or gVisor's `runsc` as root.
///
/// Nothing that matters is held in memory: which sandboxes there are is what the kernel and the
/// folders say, so a control plane that starts after a crash adopts them all. One verb at a time
/// changes a sandbox (`locks`); reading needs no lock. Invariant: whatever a launch makes is found
/// by [#list] under the sandbox's id, at every point of a launch and of a destroy.
public final class LocalDriver implements Driver {
  private static final int LOCKS = 1024;
  private static final int AGENT_LOG_TAIL = 4096;

  /// While somebody waits for the agent, how often its process is looked at.
  private static final long WATCH_MILLIS = 20;

  private final LocalConfig config;
  private final RandomGenerator random;
  private final Step.Observer observer;
  private final UnaryOperator<ObjectNode> tamper;
  private final UidSlots slots;
  private final HostTemplate template;
  private final ReentrantLock[] locks = new ReentrantLock[LOCKS];

  /// Held while room is looked for and taken; within a lock of `locks`, never around one.
  private final ReentrantLock capacity = new ReentrantLock();

  private final Map<Id, AgentSocket> sockets = new ConcurrentHashMap<>();
  private final Set<Id> launching = ConcurrentHashMap.newKeySet();
  private volatile boolean closed;

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
    this.random = random;
    this.observer = observer;
    this.tamper = tamper;
    this.slots = new UidSlots(config.uidSlots(), config.runDir());
    this.template = new HostTemplate(Path.of("/"), config.roots());
    for (int i = 0; i < LOCKS; i++) {
      locks[i] = new ReentrantLock();
    }
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
        && !spec.sandbox().equals(Probe.CANARY)) {
      throw new DriverException.Refused(
          "the local driver cannot give isolation strong (boundary.isolation) on this host: "
              + strongRefusal);
    }
    WritablePlaces.check(spec.resources(), spec.boundary());
    WritablePlaces writable = WritablePlaces.of(spec.boundary());
    Id id = spec.sandbox();
    locked(
        id,
        deadline,
        "launch " + id,
        () -> {
          Optional<Records.Identity> process = Records.readProcess(config.folder(id).process());
          if (process.isPresent()) {
            if (!process.get().isAlive()) {
              throw new DriverException.Failed(
                  "sandbox " + id + " was launched before and has ended: " + howItEnded(id));
            }
            listen(id);
            return;
          }
          launching.add(id);
          try {
            // What an earlier launch began is not trusted to be whole.
            if (exists(id)) {
              remove(id, deadline, Step.Observer.NONE);
            }
            makePrivate(config.sandboxes());
            reserve(spec, deadline);
            build(spec, writable, deadline);
          } finally {
            launching.remove(id);
          }
        });
  }

  /// Makes the sandbox's folder and its disk's image, where there is room for them: one launch at a
  /// time, so that none passes on space that another has been given.
  private void reserve(LaunchSpec spec, Deadline deadline) throws IOException, DriverException {
    locked(
        capacity,
        deadline,
        "find room for " + spec.sandbox(),
        () -> {
          if (!spec.sandbox().equals(Probe.CANARY)) {
            // A full host must be able to prove itself after a restart.
            checkCapacity(spec, deadline);
          }
          makePrivate(config.folder(spec.sandbox()).path());
          Disk.reserve(config.folder(spec.sandbox()), spec.resources().diskBytes());
        });
  }

  private void checkCapacity(LaunchSpec spec, Deadline deadline)
      throws IOException, DriverException {
    int count = 0;
    try (DirectoryStream<Path> folders = Files.newDirectoryStream(config.sandboxes())) {
      for (Path _ : folders) {
        count++;
      }
    }
    if (count >= config.maxSandboxes()) {
      throw new DriverException.Full(
          "this host has " + count + " sandboxes, and may have " + config.maxSandboxes());
    }
    long free = Files.getFileStore(config.sandboxes()).getUsableSpace();
    long promised = Disk.unwritten(config.sandboxes(), deadline);
    if (free - promised - spec.resources().diskBytes() < config.minFreeBytes()) {
      throw new DriverException.Full(
          "the disk of "
              + config.dataDir()
              + " has "
              + free
              + " bytes free, of which "
              + promised
              + " are promised to sandboxes: another with "
              + spec.resources().diskBytes()
              + " would leave less than "
              + config.minFreeBytes());
    }
  }

  private void build(LaunchSpec spec, WritablePlaces writable, Deadline deadline)
      throws IOException, DriverException {
    Id id = spec.sandbox();
    Folder folder = config.folder(id);
    List<String> agent = Files.readAllLines(config.agentBundle().resolve("argv"));
    Cgroups cgroups = Cgroups.detect(config.cgroupParent());

    int firstUid = UidSlots.firstUid(slots.claim(id));
    observer.reached(Step.SLOT_CLAIMED);

    makePrivate(folder.bundle());
    byte[] tokenHash = Hashes.sha256Bytes(spec.token().getBytes(StandardCharsets.UTF_8));
    Records.writeLaunch(folder.launch(), tokenHash);
    observer.reached(Step.FOLDER_MADE);

    Disk.format(folder, spec.resources().diskBytes(), deadline);
    observer.reached(Step.DISK_FORMATTED);
    Disk.mount(folder, deadline);
    observer.reached(Step.DISK_MOUNTED);
    Disk.furnish(folder, firstUid + OciConfig.USER);
    observer.reached(Step.DISK_FURNISHED);

    makeEnterable(config.runDir());
    makePrivate(config.sockets());
    makeEnterable(config.socketFolder(id));
    listen(id);
    observer.reached(Step.LISTENING);

    makeEnterable(config.roots());
    HostTemplate.Skeleton skeleton = template.ensure();
    ObjectNode oci =
        OciConfig.of(
            new OciConfig.Spec(
                skeleton.root(),
                skeleton.binds(),
                config.agentBundle(),
                config.socketFolder(id),
                folder.workspace(),
                agent,
                environment(spec),
                firstUid,
                cgroups.runtimePath(id),
                cgroups.limitsSwap(),
                openFiles(),
                runtimeOf(spec).hasItsOwnKernel(),
                writable,
                spec.resources()));
    Records.write(
        folder.bundle().resolve("config.json"),
        OciConfig.JSON.writeValueAsBytes(tamper.apply(oci)));
    observer.reached(Step.CONFIG_WRITTEN);

    start(runtimeOf(spec), id, folder, deadline);
    observer.reached(Step.STARTED);
    long pid = Long.parseLong(Files.readString(pidFile(folder)).strip());
    OptionalLong startTicks = KernelTables.startTicks(pid);
    if (startTicks.isEmpty()) {
      throw new DriverException.Failed("the agent of " + id + " ended at once" + agentSaid(folder));
    }
    Records.writeProcess(
        folder.process(), new Records.Identity(pid, startTicks.getAsLong(), KernelTables.bootId()));
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

  private static List<String> environment(LaunchSpec spec) {
    return List.of(
        "PATH=" + Command.PATH,
        "HOME=" + WritablePlaces.WORKSPACE,
        "LANG=C.UTF-8",
        "FOREDECK_SOCKET=/run/foredeck/agent.sock",
        "FOREDECK_EGRESS_SOCKET=/run/foredeck/egress.sock",
        "FOREDECK_TOKEN=" + spec.token(),
        "FOREDECK_WORKSPACE=" + WritablePlaces.WORKSPACE,
        "FOREDECK_PIDS=" + spec.resources().pids());
  }

  /// What this process may open at most, which is the most that it can give.
  private static long openFiles() {
    String limits = KernelTables.readIfPresent(Path.of("/proc/self/limits")).orElse("");
    for (String line : limits.lines().toList()) {
      if (line.startsWith("Max open files")) {
        String hard = line.split("\\s{2,}")[2];
        return hard.equals("unlimited") ? Long.MAX_VALUE : Long.parseLong(hard);
      }
    }
    return 1024;
  }

  @Override
  public void destroy(Id sandbox, Duration timeout) throws DriverException {
    Deadline deadline = Deadline.in(timeout);
    locked(
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
    Folder folder = config.folder(id);
    Cgroups cgroups = Cgroups.detect(config.cgroupParent());
    if (Files.exists(folder.path())) {
      // A program that a dead control plane left at work would make again what we remove.
      while (true) {
        List<Long> strays = KernelTables.rootProcessesNaming(folder.path());
        if (strays.isEmpty()) {
          break;
        }
        strays.forEach(pid -> ProcessHandle.of(pid).ifPresent(ProcessHandle::destroyForcibly));
        deadline.pause("end programs at work on " + id);
      }
    }
    // By its record first: a runtime that has ignored the cgroup leaves it outside of that.
    Optional<Records.Identity> recorded = Records.readProcess(folder.process());
    if (recorded.isPresent() && recorded.get().isAlive()) {
      ProcessHandle.of(recorded.get().pid()).ifPresent(ProcessHandle::destroyForcibly);
    }
    cgroups.kill(id, deadline);
    observer.reached(Step.KILLED);
    // What its runtime did is undone here, step by step: the record is the runtime's own, and of
    // use to nobody else.
    Trees.delete(config.runtimeState().resolve(id.value()));
    observer.reached(Step.FORGOTTEN);
    AgentSocket socket = sockets.remove(id);
    if (socket != null) {
      socket.close();
    }
    observer.reached(Step.CLOSED);
    Disk.unmount(folder, deadline);
    observer.reached(Step.UNMOUNTED);
    Disk.detach(folder, deadline);
    observer.reached(Step.DETACHED);
    cgroups.remove(id, deadline);
    observer.reached(Step.CGROUPS_REMOVED);
    Trees.delete(config.socketFolder(id));
    observer.reached(Step.SOCKETS_REMOVED);
    Trees.delete(folder.path());
    observer.reached(Step.FOLDER_REMOVED);
    slots.free(id);
    observer.reached(Step.SLOT_FREED);
  }

  @Override
  public Optional<BackendState> inspect(Id sandbox, Duration timeout) throws DriverException {
    try {
      return state(sandbox);
    } catch (IOException e) {
      throw failed("look at " + sandbox, e);
    }
  }

  private Optional<BackendState> state(Id id) throws IOException {
    if (launching.contains(id)) {
      return Optional.of(new BackendState(id, Status.STARTING, ""));
    }
    Optional<Records.Identity> process = Records.readProcess(config.folder(id).process());
    if (process.isPresent()) {
      return Optional.of(
          process.get().isAlive()
              ? new BackendState(id, Status.RUNNING, "")
              : new BackendState(id, Status.EXITED, howItEnded(id)));
    }
    return exists(id)
        ? Optional.of(
            new BackendState(id, Status.REMAINS, "left by a launch or a destroy that was cut off"))
        : Optional.empty();
  }

  private String howItEnded(Id id) throws IOException {
    long kills = Cgroups.detect(config.cgroupParent()).outOfMemoryKills(id);
    String memory =
        kills == 0 ? "" : " (the memory limit was reached: " + kills + " processes were killed)";
    return "its agent's process has ended" + memory + agentSaid(config.folder(id));
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
  public List<BackendState> list(Duration timeout) throws DriverException {
    try {
      Set<Id> ids = new TreeSet<>(slots.owners());
      ids.addAll(Cgroups.detect(config.cgroupParent()).list());
      for (Path folder : List.of(config.sandboxes(), config.sockets(), config.runtimeState())) {
        addNames(folder, ids);
      }
      for (KernelTables.Mount mount : KernelTables.mounts()) {
        addOwner(mount.point(), ids);
      }
      for (KernelTables.Loop loop : KernelTables.loops()) {
        addOwner(loop.backingFile(), ids);
      }
      List<BackendState> states = new ArrayList<>();
      for (Id id : ids) {
        if (!id.equals(Probe.CANARY) || !probing) {
          state(id).ifPresent(states::add);
        }
      }
      return states;
    } catch (IOException e) {
      throw failed("list the sandboxes", e);
    }
  }

  private boolean exists(Id id) throws IOException {
    Folder folder = config.folder(id);
    return Files.exists(folder.path())
        || Files.exists(config.socketFolder(id))
        || Files.exists(config.runtimeState().resolve(id.value()))
        || slots.find(id).isPresent()
        || Cgroups.detect(config.cgroupParent()).exists(id)
        || Disk.isMounted(folder)
        || Disk.isAttached(folder);
  }

  private static void addNames(Path folder, Set<Id> ids) throws IOException {
    if (Files.isDirectory(folder)) {
      try (DirectoryStream<Path> children = Files.newDirectoryStream(folder)) {
        for (Path child : children) {
          addId(child.getFileName().toString(), ids);
        }
      }
    }
  }

  private void addOwner(Path path, Set<Id> ids) {
    if (path.startsWith(config.sandboxes()) && !path.equals(config.sandboxes())) {
      addId(config.sandboxes().relativize(path).getName(0).toString(), ids);
    }
  }

  private static void addId(String name, Set<Id> ids) {
    if (Id.isValid(name)) {
      ids.add(new Id(name));
    }
  }

  @Override
  public AgentConnection connect(Id sandbox, String token, Duration timeout)
      throws DriverException {
    Deadline deadline = Deadline.in(timeout);
    try {
      Folder folder = config.folder(sandbox);
      byte[] hash =
          Records.readTokenHash(folder.launch())
              .orElseThrow(() -> new DriverException.NotThere("no sandbox " + sandbox));
      if (!MessageDigest.isEqual(
          hash, Hashes.sha256Bytes(token.getBytes(StandardCharsets.UTF_8)))) {
        throw new DriverException.Refused("this is not the token of sandbox " + sandbox);
      }
      while (true) {
        checkAlive(sandbox, folder);
        Optional<AgentConnection> connection = listen(sandbox).take(WATCH_MILLIS);
        if (connection.isPresent()) {
          return connection.get();
        }
        if (deadline.passed()) {
          throw new DriverException.Failed(
              "the agent of sandbox " + sandbox + " did not greet in time");
        }
      }
    } catch (IOException e) {
      throw failed("connect to " + sandbox, e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DriverException.Failed("interrupted while waiting for " + sandbox, e);
    }
  }

  private void checkAlive(Id sandbox, Folder folder) throws IOException, DriverException.NotThere {
    Optional<Records.Identity> process = Records.readProcess(folder.process());
    if (process.isEmpty() && !launching.contains(sandbox)) {
      throw new DriverException.NotThere("no sandbox " + sandbox + " is launched");
    }
    if (process.isPresent() && !process.get().isAlive()) {
      throw new DriverException.NotThere("sandbox " + sandbox + ": " + howItEnded(sandbox));
    }
  }

  /// The sandbox's listener, opened now where this control plane has none yet: the agent dials
  /// until it is heard.
  private AgentSocket listen(Id sandbox) throws IOException, DriverException.NotThere {
    AgentSocket known = sockets.get(sandbox);
    if (known != null && known.isOpen()) {
      return known;
    }
    // One at a time, whichever sandbox: it takes well under a millisecond.
    synchronized (sockets) {
      AgentSocket current = sockets.get(sandbox);
      if (current != null && current.isOpen()) {
        return current;
      }
      if (closed || !Files.isDirectory(config.socketFolder(sandbox))) {
        throw new DriverException.NotThere("no sandbox " + sandbox + " is launched");
      }
      byte[] hash =
          Records.readTokenHash(config.folder(sandbox).launch())
              .orElseThrow(() -> new DriverException.NotThere("no sandbox " + sandbox));
      AgentSocket opened =
          AgentSocket.listen(config.socketFolder(sandbox).resolve("agent.sock"), hash);
      sockets.put(sandbox, opened);
      return opened;
    }
  }

  @Override
  public Optional<EgressPath> egressPath(Id sandbox, String token) {
    return Optional.of(
        new EgressPath.UnixSocket(config.socketFolder(sandbox).resolve("egress.sock")));
  }

  /// The process that the sandbox's record names, for the probe.
  Optional<Records.Identity> process(Id sandbox) throws IOException {
    return Records.readProcess(config.folder(sandbox).process());
  }

  @Override
  public void close() {
    synchronized (sockets) {
      closed = true;
      sockets.values().forEach(AgentSocket::close);
      sockets.clear();
    }
    try {
      Cgroups.detect(config.cgroupParent()).removeParents();
    } catch (IOException _) {
      // An empty cgroup costs nothing, and the next close tries again.
    }
  }

  @FunctionalInterface
  private interface Work {
    void run() throws IOException, DriverException;
  }

  private void locked(Id id, Deadline deadline, String doing, Work work) throws DriverException {
    locked(locks[Math.floorMod(id.hashCode(), LOCKS)], deadline, doing, work);
  }

  private static void locked(ReentrantLock lock, Deadline deadline, String doing, Work work)
      throws DriverException {
    try {
      if (!lock.tryLock(Math.max(0, deadline.remainingNanos()), TimeUnit.NANOSECONDS)) {
        throw new DriverException.Failed("another verb was still at work: cannot " + doing);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DriverException.Failed("interrupted: cannot " + doing, e);
    }
    try {
      work.run();
    } catch (IOException e) {
      throw failed(doing, e);
    } finally {
      lock.unlock();
    }
  }

  private static DriverException.Failed failed(String doing, IOException e) {
    return new DriverException.Failed("cannot " + doing + ": " + e, e);
  }

  /// A folder for root alone.
  private static void makePrivate(Path folder) throws IOException {
    Files.createDirectories(folder);
    Files.setPosixFilePermissions(folder, PosixFilePermissions.fromString("rwx------"));
  }

  /// A folder that others may pass through, without seeing what is in it.
  private static void makeEnterable(Path folder) throws IOException {
    Files.createDirectories(folder);
    Files.setPosixFilePermissions(folder, PosixFilePermissions.fromString("rwx--x--x"));
  }
}
