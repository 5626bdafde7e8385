package dev.foredeck.driver.docker;

import com.github.dockerjava.api.command.CreateContainerCmd;
import com.github.dockerjava.api.command.InspectContainerResponse;
import com.github.dockerjava.api.command.InspectContainerResponse.ContainerState;
import com.github.dockerjava.api.command.InspectImageResponse;
import com.github.dockerjava.api.model.Container;
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
import dev.foredeck.driver.host.EtcFiles;
import dev.foredeck.driver.host.Folder;
import dev.foredeck.driver.host.HostPlaces;
import dev.foredeck.driver.host.KernelTables;
import dev.foredeck.driver.host.Launches;
import dev.foredeck.driver.host.SandboxLocks;
import dev.foredeck.driver.host.Step;
import dev.foredeck.driver.host.UidSlots;
import dev.foredeck.driver.host.WritablePlaces;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.nio.file.Files;
import java.time.Clock;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.UnaryOperator;
import java.util.random.RandomGenerator;
import java.util.stream.Collectors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Sandboxes that are containers of the Docker daemon on this host.
///
/// The daemon runs them; what crosses their border is this host's: the disk is mounted here, the
/// agent dials a socket that is ours. So a sandbox goes on, and its calls with it, while the daemon
/// is away, and whether its agent lives is asked of the kernel. Nothing that matters is held in
/// memory. One verb at a time changes a sandbox (`locks`); reading needs no lock. Invariant:
/// whatever a launch makes is found by [#list] under the sandbox's id, at every point of a launch
/// and of a destroy.
public final class DockerDriver implements Driver {
  /// The sandbox's user: among the users of its own slot, or of the daemon's range.
  private static final int USER = 1000;

  private static final Logger LOG = LoggerFactory.getLogger(DockerDriver.class);

  /// While somebody waits for an agent, how often its process is looked at without the daemon
  /// having said anything: it may be away.
  private static final long WATCH_MILLIS = 1000;

  /// To learn how a container ended, which is told to a person and decides nothing.
  private static final Duration ASK = Duration.ofSeconds(5);

  /// More than a daemon with a working `runsc` needs.
  private static final Duration STRONG_PROBE = Duration.ofSeconds(15);

  private final DockerConfig config;
  private final HostPlaces places;
  private final RandomGenerator random;
  private final Step.Observer observer;
  private final UnaryOperator<CreateContainerCmd> tamper;
  private final Daemon daemon;
  private final AgentSockets sockets;
  private final Berths berths;
  private final Launches launches;
  private final Events events;
  private final SandboxLocks locks = new SandboxLocks();

  /// Why no sandbox with a kernel of its own can be launched; empty when the probe has shown that
  /// it can.
  private volatile String strongRefusal = "the driver has not been probed";

  /// While it is true the canary is somebody's, and no orphan.
  private volatile boolean probing;

  /// @param random for the probe's token; a secure one outside tests
  public DockerDriver(DockerConfig config, RandomGenerator random, Clock clock) {
    this(config, random, clock, Step.Observer.NONE, UnaryOperator.identity());
  }

  /// @param observer may throw, as a control plane that dies there
  /// @param tamper changes what the daemon is told, so that tests can break what it promises
  DockerDriver(
      DockerConfig config,
      RandomGenerator random,
      Clock clock,
      Step.Observer observer,
      UnaryOperator<CreateContainerCmd> tamper) {
    this.config = config;
    this.places = config.places();
    this.random = random;
    this.observer = observer;
    this.tamper = tamper;
    this.daemon = new Daemon(config.daemon());
    this.sockets = new AgentSockets(places);
    this.berths = new Berths(places, sockets);
    this.launches = new Launches(places, sockets, WATCH_MILLIS, this::howItEnded);
    // Whoever waits for the agent of a container that has ended looks again, and sees it.
    this.events = new Events(daemon, config.deployment(), clock, sockets::close);
  }

  @Override
  public String name() {
    return "docker";
  }

  @Override
  public List<String> templates() {
    return List.copyOf(config.templates().keySet());
  }

  @Override
  public List<String> probe(Duration timeout) {
    Deadline deadline = Deadline.in(timeout);
    probing = true;
    try {
      List<String> findings =
          new Probe(this, config, daemon, random, Isolation.STANDARD).run(deadline);
      if (hasItsOwnKernel(Isolation.STANDARD)) {
        strongRefusal = String.join(" ", findings);
      } else if (findings.isEmpty()) {
        // What only some policies demand does not keep the others from running, nor waiting long.
        strongRefusal =
            String.join(
                " ",
                new Probe(this, config, daemon, random, Isolation.STRONG)
                    .run(deadline.atMost(STRONG_PROBE)));
      }
      if (findings.isEmpty()) {
        warnOfRestarts();
      }
      return findings;
    } finally {
      probing = false;
    }
  }

  private void warnOfRestarts() {
    try {
      if (!daemon.facts(Deadline.in(ASK)).liveRestore()) {
        LOG.warn(
            "the Docker daemon's live-restore is off: all sandboxes end when it restarts (set"
                + " \"live-restore\": true in its daemon.json)");
      }
    } catch (DriverException.Failed e) {
      LOG.warn("whether sandboxes outlive the Docker daemon is not known: {}", e.getMessage());
    }
  }

  /// Whether sandboxes of this isolation get gVisor's kernel and not the host's.
  boolean hasItsOwnKernel(Isolation isolation) {
    return isolation == Isolation.STRONG
        || config.runtime().filter(r -> r.startsWith(DockerConfig.STRONG_RUNTIME)).isPresent();
  }

  /// The host's number of the sandbox's user.
  int user(Id id, Daemon.Facts facts) throws IOException, DriverException.NotThere {
    return Users.of(
            berths.slot(id).orElseThrow(() -> new DriverException.NotThere("no sandbox " + id)),
            facts)
        .outside();
  }

  @Override
  public void launch(LaunchSpec spec, Duration timeout) throws DriverException {
    Deadline deadline = Deadline.in(timeout);
    String image = config.templates().get(spec.template());
    if (image == null) {
      throw new DriverException.Refused(
          "the docker driver has no template "
              + spec.template()
              + ", only "
              + String.join(", ", templates()));
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
                  Daemon.Facts facts = daemon.facts(deadline);
                  Optional<String> runtime = runtime(spec, facts);
                  checkImage(spec.template(), image, deadline);
                  // What an earlier launch began is not trusted to be whole.
                  if (exists(id, deadline)) {
                    remove(id, deadline, Step.Observer.NONE);
                  }
                  build(spec, image, runtime, facts, writable, deadline);
                }));
  }

  private Optional<String> runtime(LaunchSpec spec, Daemon.Facts facts)
      throws DriverException.Refused {
    if (spec.boundary().isolation() == Isolation.STANDARD || hasItsOwnKernel(Isolation.STANDARD)) {
      return config.runtime();
    }
    String refusal = strongRefusal;
    if (!facts.runtimes().contains(DockerConfig.STRONG_RUNTIME)) {
      refusal = "the Docker daemon has no runtime " + DockerConfig.STRONG_RUNTIME;
    }
    if (!refusal.isEmpty() && !spec.sandbox().equals(Canary.ID)) {
      throw new DriverException.Refused(
          "the docker driver cannot give isolation strong (boundary.isolation) on this host: "
              + refusal);
    }
    return Optional.of(DockerConfig.STRONG_RUNTIME);
  }

  private void checkImage(String template, String image, Deadline deadline) throws DriverException {
    InspectImageResponse found =
        daemon
            .find(deadline, "look at image " + image, c -> c.inspectImageCmd(image).exec())
            .orElseThrow(() ->
                new DriverException.Refused(
                    "template "
                        + template
                        + ": the Docker daemon has no image "
                        + image
                        + "; load it (docker pull, docker load or docker import)"));
    var imageConfig = found.getConfig();
    Map<String, ?> volumes = imageConfig == null ? null : imageConfig.getVolumes();
    if (volumes != null && !volumes.isEmpty()) {
      throw new DriverException.Refused(
          "template "
              + template
              + ": image "
              + image
              + " declares volumes ("
              + String.join(", ", new TreeSet<>(volumes.keySet()))
              + "), which would be writable places without a limit; build it without VOLUME");
    }
  }

  private void build(
      LaunchSpec spec,
      String image,
      Optional<String> runtime,
      Daemon.Facts facts,
      WritablePlaces writable,
      Deadline deadline)
      throws IOException, DriverException {
    Id id = spec.sandbox();
    Folder folder = places.folder(id);
    List<String> agent = Files.readAllLines(places.agentBundle().resolve("argv"));

    Users users = Users.of(berths.take(spec, observer, deadline), facts);
    berths.furnish(spec, users.outside(), observer, deadline);
    EtcFiles.write(folder.bundle(), EtcFiles.of(users.inside()));

    Posture.Spec posture =
        new Posture.Spec(
            agent,
            AgentSettings.environment(spec),
            users.inside(),
            folder.workspace(),
            places.socketFolder(id),
            places.agentBundle(),
            folder.bundle(),
            writable,
            spec.resources(),
            runtime,
            hasItsOwnKernel(spec.boundary().isolation()),
            Labels.of(spec, config.deployment()));
    daemon.call(
        deadline,
        "create the container of " + id,
        c ->
            tamper
                .apply(Posture.apply(c.createContainerCmd(image).withName(container(id)), posture))
                .exec());
    observer.reached(Step.PREPARED);
    daemon.call(
        deadline, "start the container of " + id, c -> c.startContainerCmd(container(id)).exec());
    observer.reached(Step.STARTED);
    launches.record(id, pid(id, deadline));
    observer.reached(Step.RECORDED);
  }

  /// The sandbox's user.
  ///
  /// @param inside as the container's users are numbered
  /// @param outside as this host's are
  private record Users(int inside, int outside) {
    /// Another one for each sandbox. Where the daemon has no user namespaces, the container's
    /// numbers are the host's: one of the users that belong to nobody then.
    static Users of(int slot, Daemon.Facts facts) {
      if (facts.firstUid().isPresent()) {
        int inside = USER + slot;
        return new Users(inside, facts.firstUid().getAsInt() + inside);
      }
      int uid = UidSlots.firstUid(slot) + USER;
      return new Users(uid, uid);
    }
  }

  /// Every control plane has a canary by the same id, and several may have the same daemon.
  String container(Id id) {
    return "foredeck-" + (id.equals(Canary.ID) ? "canary-" + config.deployment() : id);
  }

  /// The host's number of the container's first process; 0 where there is none.
  private long pid(Id id, Deadline deadline) throws DriverException.Failed {
    return daemon
        .container(deadline, container(id))
        .map(InspectContainerResponse::getState)
        .map(ContainerState::getPidLong)
        .orElse(0L);
  }

  @Override
  public void destroy(Id sandbox, Duration timeout) throws DriverException {
    Deadline deadline = Deadline.in(timeout);
    locks.locked(
        sandbox,
        deadline,
        "destroy " + sandbox,
        () -> {
          if (exists(sandbox, deadline)) {
            remove(sandbox, deadline, observer);
          }
        });
  }

  /// Undoes every step of a launch, whichever of them were done.
  private void remove(Id id, Deadline deadline, Step.Observer observer)
      throws IOException, DriverException {
    KernelTables.endRootProcessesNaming(places.folder(id).path(), deadline);
    removeContainer(id, deadline);
    observer.reached(Step.ENDED);
    berths.clear(id, observer, deadline);
    launches.forget(id);
  }

  /// Removes it and everything that runs in it. Another removal may be under way.
  private void removeContainer(Id id, Deadline deadline) throws DriverException.Failed {
    while (true) {
      Optional<InspectContainerResponse> container = daemon.container(deadline, container(id));
      if (container.isEmpty()) {
        return;
      }
      var containerConfig = container.get().getConfig();
      Map<String, String> labels = containerConfig == null ? null : containerConfig.getLabels();
      if (labels == null || !config.deployment().equals(labels.get(Labels.DEPLOYMENT))) {
        throw new DriverException.Failed(
            "container " + container(id) + " is not of this deployment, and is left alone");
      }
      try {
        daemon.find(
            deadline,
            "remove the container of " + id,
            c -> {
              c.removeContainerCmd(container(id)).withForce(true).withRemoveVolumes(true).exec();
              return true;
            });
      } catch (DriverException.Failed e) {
        if (!Daemon.isConflict(e)) {
          throw e;
        }
        deadline.pause("remove the container of " + id);
      }
    }
  }

  @Override
  public Optional<BackendState> inspect(Id sandbox, Duration timeout) throws DriverException {
    try {
      Optional<BackendState> state = launches.state(sandbox);
      return state.isEmpty() && exists(sandbox, Deadline.in(timeout))
          ? Optional.of(Launches.remains(sandbox))
          : state;
    } catch (IOException e) {
      throw SandboxLocks.failed("look at " + sandbox, e);
    }
  }

  private boolean exists(Id id, Deadline deadline) throws IOException, DriverException.Failed {
    return berths.exists(id) || daemon.container(deadline, container(id)).isPresent();
  }

  private String howItEnded(Id id) {
    String ended = "its agent's process has ended";
    try {
      Optional<InspectContainerResponse> container =
          daemon.container(Deadline.in(ASK), container(id));
      if (container.isEmpty()) {
        return ended + " (its container was removed by somebody else)";
      }
      ContainerState state = container.get().getState();
      boolean memory = events.ranOutOfMemory(id) || Boolean.TRUE.equals(state.getOOMKilled());
      String error = state.getError() == null ? "" : Command.lastLine(state.getError());
      return ended
          + " with exit code "
          + state.getExitCodeLong()
          + (memory ? " (the memory limit was reached)" : "")
          + (error.isEmpty() ? "" : ": " + error);
    } catch (DriverException.Failed e) {
      return ended + " (" + e.getMessage() + ")";
    }
  }

  @Override
  public List<BackendState> list(Duration timeout) throws DriverException {
    Deadline deadline = Deadline.in(timeout);
    try {
      List<Container> containers =
          daemon.containers(deadline, Labels.DEPLOYMENT, config.deployment());
      Set<Id> ids = berths.ids();
      ids.addAll(
          containers.stream()
              .map(Container::getLabels)
              .flatMap(labels -> Labels.sandbox(labels).stream())
              .collect(Collectors.toSet()));
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

  @Override
  public void close() {
    events.close();
    sockets.close();
    daemon.close();
    config.places().removeEmptyRunFolders();
  }
}
