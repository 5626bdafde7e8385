package dev.foredeck.core.driver;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.AgentDialogue.Outcome;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.egress.EgressPath;
import dev.foredeck.policy.Boundary;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.NetworkInterface;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/// From inside a sandbox, through its agent, as any program of a user: what must not work does not
/// work. Every driver with real sandboxes passes it. Two sandboxes live as long as the test class:
/// the one that tries, and a neighbour that must not be touched.
///
/// A backend that promises something else than the local driver says so in a hook ([#network],
/// [#disk], ...), with the reason at its constant; the test then checks what *is* promised. No test
/// is skipped. Programs that every template must have: `bash`, the usual coreutils, `find`, `grep`,
/// and [#python].
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
public abstract class EscapeContract implements ContractReport.Subject {
  @RegisterExtension static final ContractReport REPORT = new ContractReport("escape");
  protected static final Duration TIMEOUT = Duration.ofSeconds(30);
  private static final Duration BACKEND_ACTS = Duration.ofMinutes(3);
  private static final String TOKEN = "the-token-of-this-sandbox";
  private static final String NEIGHBOUR_TOKEN = "the-token-of-the-neighbour";
  private static final String OTHER_TOKEN = "the-token-of-the-third";

  /// Programs that make sandboxes: none may be seen in a sandbox's process table.
  private static final List<String> BACKENDS =
      List.of("runc", "runsc", "containerd", "dockerd", "kubelet");

  /// What a kernel of the sandbox's own lets everybody do, and why that reaches nothing of the
  /// host.
  private static final Map<String, String> OWN_KERNEL_ALLOWS =
      Map.of(
          "sysctl -w kernel.domainname=x",
          "sysctl passes over the failure to write (Invalid argument): nothing is set",
          "renice -n -5 $$",
          "only the sandbox's own kernel remembers it",
          "echo -1000 > /proc/self/oom_score_adj",
          "only the sandbox's own kernel remembers it");

  /// The same, of a kernel in which nothing else says which system calls a program may make.
  private static final Map<String, String> NO_FILTER_ALLOWS =
      Map.of(
          "unshare --user true",
          "root of a new user namespace is root over nothing that was there before",
          "dmesg",
          "the sandbox's own kernel has a log of its own");

  private final Ids ids = new Ids(Clock.systemUTC(), new SecureRandom());
  private final Id sandbox = ids.sandbox();
  private final Id neighbour = ids.sandbox();

  // What a backend is and has.

  /// The driver's name, and what distinguishes this way of running it, as `local (runsc)`.
  @Override
  public String column() {
    return driver().name();
  }

  /// Always the same: the test class is made once, and its constructor makes what it needs.
  protected abstract Driver driver();

  /// Closes the driver and removes what the constructor made, when all sandboxes are destroyed.
  protected abstract void release() throws Exception;

  /// Paths of the host that exist, with something in them where they are folders, and that must not
  /// be found in a sandbox: the data folder, sockets, the neighbour's workspace as the host sees
  /// it.
  protected abstract List<Path> hostPaths(Id neighbour) throws Exception;

  /// The tools that the template has: these must work, and the others must not be there.
  protected abstract Set<Tool> tools();

  /// What to launch. The limits are asserted: override only what the backend needs beside them.
  protected LaunchSpec spec(Id id, String token) {
    return new LaunchSpec(
        id,
        new Id("ten00000000000escape"),
        driver().templates().getFirst(),
        new Resources(1000, 256L << 20, 32L << 20, 128),
        Boundary.NONE,
        token,
        Map.of(),
        Instant.parse("2100-01-01T00:00:00Z"));
  }

  protected String python() {
    return "/usr/bin/python3";
  }

  /// Where something listens that no sandbox may reach, beside this host's own addresses: an API
  /// server, a kubelet, the neighbour's agent. The test connects from here first.
  protected List<InetSocketAddress> forbidden(Id neighbour) throws Exception {
    return List.of();
  }

  /// The one address that a sandbox may reach, where the gateway is reached over the network
  /// ([EgressPath.Credential]). Something listens there during the test.
  protected InetSocketAddress gateway() {
    throw new AssertionError("this driver's egress path needs the gateway's address");
  }

  // What a backend promises, where backends differ.

  /// Whose kernel serves the sandbox's system calls. What follows from it is decided here, once for
  /// all drivers.
  protected Kernel kernel() {
    return Kernel.HOST;
  }

  protected Network network() {
    return Network.LOOPBACK_ONLY;
  }

  protected Filter filter() {
    return Filter.OURS;
  }

  protected AgentDoor agentDoor() {
    return new AgentDoor.Dials("/run/foredeck/agent.sock");
  }

  protected Disk disk() {
    return Disk.HARD_LIMIT;
  }

  protected Sysfs sysfs() {
    return Sysfs.ABSENT;
  }

  /// The most that `/tmp` takes, in bytes.
  protected long tmpBytes() {
    return 128L << 20;
  }

  /// The least user of the host that a sandbox's user 0 may be; empty where the backend has no user
  /// namespaces, so that users are the host's by number (and everything runs as [#user] without
  /// capabilities).
  protected OptionalLong usersFrom() {
    return OptionalLong.empty();
  }

  /// The number that a sandbox's user has inside. A backend without user namespaces may give each
  /// sandbox a user of its own, so that no two share what the kernel counts by user.
  protected Pattern user() {
    return Pattern.compile("1000");
  }

  /// The map of a sandbox's users to those of the host, as in `/proc/PID/uid_map`. A program can
  /// tell where its kernel is the host's; else the driver's test asks the host.
  protected String userMap(Id id) throws Exception {
    return sh("cat /proc/self/uid_map").text();
  }

  /// Folders in which a program may keep something.
  protected List<String> writableFolders() {
    return List.of("/workspace", "/tmp", "/var/tmp", "/dev/shm");
  }

  /// Folders with something mounted in them that everybody could write to, and that therefore
  /// nobody but the sandbox's root may enter.
  protected List<String> sealedFolders() {
    return List.of();
  }

  /// Single files, beneath none of the writable folders, that a program may open for writing:
  /// devices that keep nothing, and sockets of this sandbox's own, where connecting is all that can
  /// be done. A backend that adds one says why.
  protected Pattern writableFiles() {
    return Pattern.compile(
        "/dev/(null|zero|full|random|urandom|tty|ptmx|pts/ptmx)"
            + "|/run/foredeck/(agent|egress)\\.sock");
  }

  /// Which of the host's folders of secrets (`/etc/ssh`) the template's own image has too: there is
  /// then a folder, and no key in it.
  protected Set<String> foldersOfTheImage() {
    return Set.of();
  }

  protected enum Kernel {
    /// The host's: a system call filter around each process, limits that the kernel counts.
    HOST,
    /// A kernel of the sandbox's own (gVisor). To the host all programs are one memory, so that one
    /// that takes too much ends its own sandbox, where the host's kernel would end that program
    /// alone. Process 1 has no protection from its own user's signals either: with KILL a program
    /// may end its own sandbox, and nothing else.
    OWN
  }

  /// Who says which system calls a program may make.
  protected enum Filter {
    /// A filter of ours: nothing is allowed that a program in a sandbox has no use for.
    OURS,
    /// The container runtime's own (a pod's `RuntimeDefault`): a filter of ours would have to lie
    /// on every node. Beyond ours it allows what a user may do to programs of their own, and names
    /// of files by handle. None of it works on the agent.
    THE_RUNTIMES,
    /// No filter, and a kernel of the sandbox's own: gVisor in a cluster, whose `RuntimeDefault`
    /// gVisor could not enforce without breaking threads (it knows no other error than `EPERM`, and
    /// C libraries take only `ENOSYS` of `clone3` for an answer). What these calls reach is that
    /// kernel's: a program may trace its own, and make a user namespace in which it is root over
    /// nothing that was there before.
    OF_ITS_OWN_KERNEL;

    private Set<String> allows() {
      return switch (this) {
        case OURS -> Set.of();
        case THE_RUNTIMES ->
            Set.of("ptrace", "process_vm_readv", "process_vm_writev", "name_to_handle_at");
        case OF_ITS_OWN_KERNEL ->
            Set.of(
                "ptrace",
                "process_vm_readv",
                "process_vm_writev",
                "name_to_handle_at",
                "open_by_handle_at",
                "setns",
                "unshare",
                "perf_event_open",
                "add_key",
                "request_key",
                "pidfd_getfd",
                "open_tree",
                "clone3",
                "clone");
      };
    }
  }

  /// What network a sandbox has.
  protected enum Network {
    /// A network namespace without an interface but loopback: the kernel has no route.
    LOOPBACK_ONLY,
    /// An interface that the backend cannot do without (a pod's), whose packets are dropped unless
    /// they go to the gateway: connecting ends by a timeout or a refusal, not for want of a route.
    FIREWALLED
  }

  /// How the agent is reached, as a program in the sandbox sees it.
  protected sealed interface AgentDoor {
    /// The agent dials a socket that the control plane listens on.
    record Dials(String socket) implements AgentDoor {}

    /// The agent listens, because nothing of the control plane can be mounted there (a pod); it
    /// speaks TLS, so that a refusal may be a TLS alert.
    record Listens(int port) implements AgentDoor {}
  }

  /// What happens to a sandbox that fills its workspace.
  protected enum Disk {
    /// A file system of its own size: `ENOSPC`, and the sandbox goes on.
    HARD_LIMIT,
    /// The same in memory, where a file system takes nothing for itself: all of it can be filled.
    MEMORY,
    /// The backend counts now and then, and ends the sandbox (a kubelet's eviction).
    ENDS_THE_SANDBOX
  }

  /// Whether there is a `/sys`.
  protected enum Sysfs {
    ABSENT,
    /// The backend always mounts it (Docker, containerd): read-only, its firmware masked.
    READ_ONLY,
    /// gVisor's, in a pod: it tells of the sandbox's own kernel, and has nothing in `/sys/kernel`.
    OF_ITS_OWN_KERNEL
  }

  /// Programs that people expect to work, with a script that prints `1` when they do.
  public enum Tool {
    PYTHON3(
        "python3",
        "python3 -c 'import threading, ssl, json; t=threading.Thread(target=print, args=(1,));"
            + " t.start(); t.join()'"),
    NODE("node", "node -e 'console.log(1)'"),
    GIT(
        "git",
        "git init -q /workspace/repo && cd /workspace/repo && git -c user.name=x -c user.email=x@x"
            + " commit -q --allow-empty -m x && git log --oneline | wc -l"),
    GCC(
        "gcc",
        "printf 'int main(){return 0;}' > /workspace/a.c && gcc -o /workspace/a /workspace/a.c &&"
            + " /workspace/a && echo 1"),
    PERL("perl", "perl -e 'print 1'"),
    COREUTILS(
        "mktemp", "mktemp >/dev/null && date >/dev/null && ls -la /workspace >/dev/null && echo 1"),
    NAMES("getent", "getent hosts localhost | wc -l"),
    TERMINAL("script", "script -qc 'echo 1' /dev/null | tr -d '\\r'");

    private final String program;
    private final String script;

    Tool(String program, String script) {
      this.program = program;
      this.script = script;
    }

    /// Those of this host, for templates that are the host's own programs.
    public static Set<Tool> ofThisHost() {
      return Set.copyOf(
          Arrays.stream(values())
              .filter(tool ->
                  Stream.of(AgentDialogue.PATH.split(":"))
                      .anyMatch(folder -> Files.isExecutable(Path.of(folder, tool.program))))
              .toList());
    }
  }

  @BeforeAll
  void launch() throws Exception {
    driver().launch(spec(sandbox, TOKEN), TIMEOUT);
    driver().launch(spec(neighbour, NEIGHBOUR_TOKEN), TIMEOUT);
  }

  @AfterAll
  void destroy() throws Exception {
    try {
      driver().destroy(sandbox, TIMEOUT);
      driver().destroy(neighbour, TIMEOUT);
    } finally {
      release();
    }
  }

  private Outcome run(Id id, String token, String... argv) throws Exception {
    String call = ids.call().value();
    Outcome outcome = AgentDialogue.run(driver().connect(id, token, TIMEOUT), call, argv);
    assertThat(AgentDialogue.ask(driver().connect(id, token, TIMEOUT), new Message.Release(call)))
        .isEqualTo(new Message.Done());
    return outcome;
  }

  private static String[] argv(List<String> program, String... arguments) {
    return Stream.concat(program.stream(), Stream.of(arguments)).toArray(String[]::new);
  }

  protected final Outcome sh(String script, String... arguments) throws Exception {
    return run(sandbox, TOKEN, argv(List.of("bash", "-c", script, "bash"), arguments));
  }

  private Outcome python(String script, String... arguments) throws Exception {
    return run(sandbox, TOKEN, argv(List.of(python(), "-c", script), arguments));
  }

  protected static void fails(Outcome outcome) {
    assertThat(outcome.ended()).as("the program ran").isNotNull();
    assertThat(outcome.exitCode()).as("%s%s", outcome.text(), outcome.errors()).isNotZero();
  }

  /// Tries to connect; where packets are dropped nobody answers, so not for long.
  private Outcome connect(String host, int port) throws Exception {
    return sh(
        "timeout 3 bash -c 'exec 3<>/dev/tcp/$0/$1' \"$1\" \"$2\"", host, Integer.toString(port));
  }

  /// In a sandbox of its own: what ends it, as its backend promises.
  private void endsItsOwnSandbox(String script) throws Exception {
    Id third = ids.sandbox();
    try {
      driver().launch(spec(third, OTHER_TOKEN), TIMEOUT);
      try {
        AgentDialogue.run(
            driver().connect(third, OTHER_TOKEN, TIMEOUT),
            ids.call().value(),
            "bash",
            "-c",
            script,
            "bash",
            python());
      } catch (IOException _) {
        // The connection ended with its sandbox.
      }
      Instant latest = Instant.now().plus(BACKEND_ACTS);
      while (driver()
          .inspect(third, TIMEOUT)
          .filter(s -> s.status() == Status.RUNNING)
          .isPresent()) {
        assertThat(Instant.now()).as("the backend ends it").isBefore(latest);
        Thread.sleep(50);
      }
    } finally {
      driver().destroy(third, TIMEOUT);
    }
  }

  /// Whatever a test did: both sandboxes go on.
  @AfterEach
  void bothSandboxesGoOn() throws Exception {
    assertThat(driver().inspect(sandbox, TIMEOUT).orElseThrow().status()).isEqualTo(Status.RUNNING);
    assertThat(run(neighbour, NEIGHBOUR_TOKEN, "echo", "fine").text()).isEqualTo("fine\n");
  }

  // Network.

  @Test
  void doesNotReachAnyAddressOfTheHost() throws Exception {
    List<InetSocketAddress> doors = new ArrayList<>();
    try (ServerSocket everywhere = new ServerSocket(0)) {
      for (NetworkInterface network : Collections.list(NetworkInterface.getNetworkInterfaces())) {
        for (InetAddress address : Collections.list(network.getInetAddresses())) {
          String host = address.getHostAddress().replaceAll("%.*", "");
          doors.add(new InetSocketAddress(host, everywhere.getLocalPort()));
        }
      }
      assertThat(doors).isNotEmpty();
      noneOpens(doors);
      everywhere.setSoTimeout(1);
      assertThatThrownBy(everywhere::accept).isInstanceOf(SocketTimeoutException.class);
    }
    for (InetSocketAddress address : forbidden(neighbour)) {
      try (Socket socket = new Socket()) {
        socket.connect(address, (int) TIMEOUT.toMillis());
      }
    }
    noneOpens(forbidden(neighbour));
  }

  /// All at once: where packets are dropped, each takes its time.
  private void noneOpens(List<InetSocketAddress> doors) throws Exception {
    List<Callable<Outcome>> tries = new ArrayList<>();
    for (InetSocketAddress door : doors) {
      tries.add(() -> connect(door.getAddress().getHostAddress(), door.getPort()));
    }
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (Future<Outcome> outcome : threads.invokeAll(tries)) {
        fails(outcome.get());
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"192.88.99.1", "169.254.169.254", "10.0.0.1", "2001:db8::1"})
  void hasNoRoute(String address) throws Exception {
    Outcome outcome = connect(address, 80);

    fails(outcome);
    switch (network()) {
      case LOOPBACK_ONLY -> assertThat(outcome.errors()).contains("unreachable");
      case FIREWALLED -> {
        // 124 is how timeout says that nobody answered.
        if (outcome.exitCode() != 124) {
          assertThat(outcome.errors())
              .containsPattern("unreachable|not permitted|refused|timed out");
        }
      }
    }
  }

  @Test
  void hasLoopbackAndNothingElse() throws Exception {
    String interfaces = sh("cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' ' | sort").text();
    assertThat(interfaces)
        .isEqualTo(
            switch (network()) {
              case LOOPBACK_ONLY -> "lo\n";
              case FIREWALLED -> "eth0\nlo\n";
            });
    assertThat(
            python(
                    """
                    import socket
                    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
                    socket.create_connection(s.getsockname()); print('up')
                    """)
                .text())
        .isEqualTo("up\n");
  }

  @Test
  void hasNoRawNorUnusualSockets() throws Exception {
    Outcome outcome =
        python(
            """
            import socket, struct, sys
            tries = [(socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, socket.SOCK_RAW, 0),
                     (40, socket.SOCK_STREAM, 0), (38, socket.SOCK_SEQPACKET, 0), (socket.AF_NETLINK, socket.SOCK_RAW, 9)]
            for t in tries:
                try:
                    s = socket.socket(*t)
                    if t[0] == socket.AF_NETLINK and sys.argv[1] == 'THE_RUNTIMES':
                        # The audit's: a program without privileges is told no, whatever it asks (1000: its state).
                        s.settimeout(10)
                        s.sendto(struct.pack('IHHII', 16, 1000, 5, 1, 0), (0, 0))
                        if struct.unpack('IHHIIi', s.recv(1000)[:20])[5] < 0: continue
                    print('made', t)
                except OSError:
                    pass
            """,
            filter().name());

    assertThat(outcome.text()).isEmpty();
    assertThat(outcome.exitCode()).as(outcome.errors()).isZero();
  }

  @Test
  void doesNotReachAbstractSocketsOfTheHost() throws Exception {
    // Java has none in the abstract name space, so a program of the host listens.
    Process listener =
        new ProcessBuilder(
                "python3",
                "-c",
                "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind('\\0'+sys.argv[1]);"
                    + " s.listen(); print('on', flush=True); sys.stdin.read()",
                sandbox.value())
            .start();
    try {
      assertThat(listener.inputReader().readLine()).isEqualTo("on");
      fails(
          python(
              "import socket,sys; socket.socket(socket.AF_UNIX).connect('\\0'+sys.argv[1])",
              sandbox.value()));
    } finally {
      listener.destroyForcibly();
    }
  }

  // Files.

  @ParameterizedTest
  @ValueSource(
      strings = {
        "/",
        "/usr",
        "/usr/bin",
        "/etc",
        "/var",
        "/var/lib",
        "/opt",
        "/opt/foredeck/agent",
        "/run",
        "/run/foredeck",
        "/root",
        "/home",
        "/dev",
        "/proc/sys",
        "/proc/sys/kernel",
        "/proc/self"
      })
  void writesNothingOutsideTheWritablePlaces(String folder) throws Exception {
    fails(sh("echo x > $1/escape", folder));
    fails(sh("mkdir $1/escape", folder));
  }

  @Test
  void writesWhereItMay() throws Exception {
    for (String folder : writableFolders()) {
      assertThat(sh("echo x > $1/mine && cat $1/mine && rm $1/mine", folder).text())
          .isEqualTo("x\n");
    }
  }

  @Test
  void everyWritableMountIsKnown() throws Exception {
    // Asked of the kernel, not of a list: what the sandbox's user can write to on any mount that
    // is not read-only as a whole.
    Outcome outcome =
        sh(
            "grep -v -E ' /proc[ /]' /proc/self/mountinfo | cut -d' ' -f5,6 | grep -E ' rw(,|$)'"
                + " | while read m _; do find $m -xdev -writable -not -type l; done 2>/dev/null"
                + " | sort -u; ls -la /run/foredeck >&2");
    assertThat(outcome.text()).contains("/workspace\n");
    assertThat(outcome.text().lines())
        .allMatch(path ->
            writableFolders().stream().anyMatch(Path.of(path)::startsWith)
                || writableFiles().matcher(path).matches()
                // Devices that gVisor's kernel makes itself; mounting what the one serves, and
                // giving the other an address, needs capabilities.
                || (kernel() == Kernel.OWN && path.matches("/dev/(fuse|net/tun)")));
    for (String folder : sealedFolders()) {
      assertThat(sh("cut -d' ' -f5 /proc/self/mountinfo | grep -c ^$1/", folder).text())
          .as("something is mounted there")
          .isEqualTo("1\n");
      fails(sh("ls $1", folder));
      fails(sh("unshare --user --map-root-user ls $1", folder));
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "/etc/shadow",
        "/etc/ssh",
        "/root/.ssh",
        "/etc/sudoers",
        "/sys/kernel",
        "/var/run/docker.sock",
        "/proc/kcore",
        "/proc/keys",
        "/proc/1/environ",
        "/proc/1/mem",
        "/proc/1/cwd",
        "/proc/1/root"
      })
  void readsNothingOfTheHostOrTheAgent(String path) throws Exception {
    if (path.equals("/sys/kernel") && sysfs() == Sysfs.READ_ONLY) {
      assertThat(sh("find /sys -xdev -writable -not -type l; ls /sys/firmware").text()).isEmpty();
      assertThat(sh("ls /sys/kernel").text()).as("it is there, as promised").isNotEmpty();
      return;
    }
    if (foldersOfTheImage().contains(path)) {
      assertThat(sh("cat $1/*key* 2>/dev/null", path).text()).isEmpty();
      assertThat(sh("ls $1", path).text()).as("it is there, as promised").isNotEmpty();
      return;
    }
    Outcome outcome = sh("cat $1/. 2>/dev/null || cat $1 || ls $1/", path);

    assertThat(outcome.text()).as(path).isEmpty();
  }

  @Test
  void seesNothingOfTheControlPlaneAndItsNeighbour() throws Exception {
    List<Path> paths = hostPaths(neighbour);
    assertThat(paths).isNotEmpty();
    for (Path path : paths) {
      assertThat(path).exists();
      fails(sh("ls $1", path.toString()));
      fails(sh("cd /workspace; ln -sfn $1 link; ls link/", path.toString()));
    }
    assertThat(sh("cat /proc/*/cmdline | tr '\\0' ' '").text()).doesNotContain(BACKENDS);
    assertThat(sh("ls -d /proc/[0-9]* | wc -l").text().strip()).matches("[0-9]");
  }

  @Test
  void theNeighboursWorkspaceIsAnother() throws Exception {
    assertThat(
            run(neighbour, NEIGHBOUR_TOKEN, "sh", "-c", "echo mine > /workspace/private")
                .exitCode())
        .isZero();

    fails(sh("cat /workspace/private"));
    assertThat(sh("ls /tmp /workspace/").text()).doesNotContain("private");
  }

  @Test
  void aSymlinkInTheWorkspaceDoesNotLeadTheHostOut() throws Exception {
    assertThat(sh("ln -sfn / /workspace/out && ln -sfn /etc/shadow /workspace/shadow").exitCode())
        .isZero();
    for (String path : List.of("out/etc/passwd", "shadow")) {
      Message answer =
          AgentDialogue.ask(
              driver().connect(sandbox, TOKEN, TIMEOUT), new Message.ReadFile(path, 0, 1000));
      assertThat(answer).isInstanceOf(Message.Failure.class);
    }
  }

  // The agent and its socket.

  @Test
  void theAgentsSecretIsHiddenAndItsSocketGivesNothing() throws Exception {
    assertThat(sh("env; cat /proc/1/environ /proc/*/environ 2>/dev/null | tr '\\0' '\\n'").text())
        .doesNotContain(TOKEN);
    // Whoever comes without the token is turned away, and the agent goes on being heard.
    List<String> door =
        switch (agentDoor()) {
          case AgentDoor.Dials(String socket) -> List.of("AF_UNIX", socket, "");
          // Types of TLS's records: a hello, as whoever listens plays the client, and an alert.
          // Not 17, which would be the agent's words.
          case AgentDoor.Listens(int port) -> List.of("AF_INET", Integer.toString(port), "1615");
        };
    Outcome outcome =
        python(
            """
            import socket, sys
            family, door, refusal = sys.argv[1:]
            address = door if family == 'AF_UNIX' else ('127.0.0.1', int(door))
            connected = 0
            for i in range(20):
                s = socket.socket(getattr(socket, family)); s.settimeout(10)
                try:
                    s.connect(address)
                    connected += 1
                    s.sendall(b'\\x00\\x00\\x00\\x05hello')
                    said = b''
                    while part := s.recv(4096): said += part
                    types = ''
                    while said:
                        types += said[:1].hex()
                        said = said[5 + int.from_bytes(said[3:5]):]
                    if types not in ('', refusal): print('answered', types)
                except OSError:
                    pass
            if not connected: print('nobody is there')
            """,
            door.toArray(String[]::new));
    assertThat(outcome.text()).isEmpty();
    assertThat(sh("echo still here").text()).isEqualTo("still here\n");
  }

  @Test
  void theSocketFolderCannotBeChanged() throws Exception {
    switch (agentDoor()) {
      case AgentDoor.Dials(String socket) -> fails(sh("rm -f $1", socket));
      case AgentDoor.Listens _ -> fails(sh("ls /run/foredeck/*.sock"));
    }
    fails(sh("mv /run/foredeck/agent.sock /run/foredeck/other"));
    fails(sh("ln -s /etc/passwd /run/foredeck/egress.sock"));
    fails(sh("chmod 777 /run/foredeck"));
  }

  @Test
  void theGatewayIsReachedAndByItsOwnSandboxOnly() throws Exception {
    switch (driver().egressPath(sandbox, TOKEN).orElseThrow()) {
      case EgressPath.UnixSocket(Path own) -> reachesOnlyItsOwn(own);
      case EgressPath.Credential _ ->
          assertThat(
                  connect(gateway().getAddress().getHostAddress(), gateway().getPort()).exitCode())
              .isZero();
    }
  }

  private void reachesOnlyItsOwn(Path own) throws Exception {
    try (ServerSocketChannel gateway = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      gateway.bind(UnixDomainSocketAddress.of(own));
      Files.setPosixFilePermissions(own, PosixFilePermissions.fromString("rw-rw-rw-"));
      assertThat(
              python(
                      "import socket;"
                          + " socket.socket(socket.AF_UNIX).connect('/run/foredeck/egress.sock');"
                          + " print('connected')")
                  .text())
          .isEqualTo("connected\n");
      assertThat(run(neighbour, NEIGHBOUR_TOKEN, "ls", "/run/foredeck").text())
          .doesNotContain("egress.sock");
    } finally {
      Files.deleteIfExists(own);
    }
  }

  @Test
  void theAgentIsNeitherKilledNorTraced() throws Exception {
    String boot = bootId();
    // Not SEGV and the like, which the JVM must handle: with them a program ends its own sandbox,
    // as it may, and nothing else.
    switch (kernel()) {
      case HOST -> {
        sh("for s in KILL STOP TERM INT HUP TSTP USR2; do kill -$s 1; done");
        sh("kill -KILL -1");
      }
      case OWN -> endsItsOwnSandbox("kill -KILL 1; sleep 600");
    }
    fails(
        python(
            "import ctypes,os; l=ctypes.CDLL(None, use_errno=True);"
                + " r=l.ptrace(16, 1, 0, 0); print(r); exit(0 if r == 0 else 1)"));
    fails(sh("head -c 1 /proc/1/mem"));
    assertThat(bootId()).isEqualTo(boot);
  }

  private String bootId() throws Exception {
    var agent = driver().connect(sandbox, TOKEN, TIMEOUT);
    assertThat(AgentDialogue.ask(agent, new Message.Ping())).isEqualTo(new Message.Done());
    return agent.greeting().bootId();
  }

  // Privileges.

  @Test
  void hasNoPrivilege() throws Exception {
    Outcome status = sh("cat /proc/self/status; id -u");

    assertThat(status.text())
        .containsPattern("CapEff:\\s0+\\n")
        .containsPattern("CapPrm:\\s0+\\n")
        .containsPattern("CapBnd:\\s0+\\n")
        .containsPattern("NoNewPrivs:\\s1\\n")
        .containsPattern("Seccomp:\\s" + (filter() == Filter.OF_ITS_OWN_KERNEL ? 0 : 2) + "\\n")
        .containsPattern("\n(" + user() + ")\n$");
    List<String> mapping =
        userMap(sandbox).lines().filter(line -> line.matches("\\s+0\\s+\\d+\\s+\\d+")).toList();
    assertThat(mapping).hasSize(1);
    String[] numbers = mapping.getFirst().strip().split("\\s+");
    if (usersFrom().isPresent()) {
      assertThat(Long.parseLong(numbers[1]))
          .as("user 0 is none of the host's")
          .isGreaterThanOrEqualTo(usersFrom().getAsLong());
      assertThat(numbers[2]).isEqualTo("65536");
    } else {
      assertThat(numbers).as("users are the host's, as promised").contains("0", "4294967295");
    }
  }

  @Test
  void setuidProgramsGiveNothing() throws Exception {
    assertThat(
            sh("for p in su sudo mount passwd newgrp ping; do f=$(command -v $p) && $f -h"
                    + " >/dev/null 2>&1; done; cp /usr/bin/id /workspace/id; chmod 6755"
                    + " /workspace/id; /workspace/id -u")
                .text())
        .matches("(" + user() + ")\n");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "mount -t tmpfs none /tmp",
        "mount --bind /tmp /workspace",
        "umount /proc",
        "mknod /workspace/disk b 254 0",
        "mknod /workspace/mem c 1 1",
        "chroot /workspace /bin/true",
        "unshare --user true",
        "unshare --mount true",
        "unshare --net true",
        "nsenter --target 1 --all true",
        "setpriv --reuid 0 true",
        "chown 0 /workspace",
        "hostname other",
        "date -s 2000-01-01",
        "sysctl -w kernel.domainname=x",
        "dmesg",
        "swapon /workspace/x",
        "echo 1 > /proc/sysrq-trigger",
        "echo x > /proc/sys/kernel/core_pattern",
        "renice -n -5 $$",
        "ulimit -n 1000000",
        "modprobe loop",
        "kexec -l /boot/vmlinuz",
        "losetup -f /workspace/x",
        "keyctl show",
        "bpftool prog",
        "mkdir /sys/fs/cgroup/x",
        "echo -1000 > /proc/self/oom_score_adj"
      })
  void isRefused(String command) throws Exception {
    Outcome outcome = sh("PATH=$PATH:/usr/sbin:/sbin; " + command);

    String allowed =
        filter() == Filter.OF_ITS_OWN_KERNEL && NO_FILTER_ALLOWS.containsKey(command)
            ? NO_FILTER_ALLOWS.get(command)
            : OWN_KERNEL_ALLOWS.get(command);
    if (kernel() == Kernel.OWN && allowed != null) {
      assertThat(outcome.exitCode()).as("allowed, because %s", allowed).isZero();
    } else {
      fails(outcome);
    }
  }

  @Test
  void dangerousSystemCallsAreRefused() throws Exception {
    // By number on x86-64: what must fail whatever program is there. ENOSYS is as good as EPERM.
    Outcome outcome =
        python(
            """
            import ctypes, errno, os, platform
            assert platform.machine() == 'x86_64'
            l = ctypes.CDLL(None, use_errno=True)
            calls = {'ptrace': 101, 'mount': 165, 'umount2': 166, 'pivot_root': 155, 'chroot': 161, 'setns': 308,
                     'unshare': 272, 'bpf': 321, 'perf_event_open': 298, 'userfaultfd': 323, 'keyctl': 250,
                     'add_key': 248, 'request_key': 249, 'io_uring_setup': 425, 'kexec_load': 246,
                     'init_module': 175, 'finit_module': 313, 'delete_module': 176, 'reboot': 169, 'swapon': 167,
                     'acct': 163, 'settimeofday': 164, 'clock_settime': 227, 'iopl': 172, 'ioperm': 173,
                     'open_by_handle_at': 304, 'name_to_handle_at': 303, 'process_vm_readv': 310,
                     'process_vm_writev': 311, 'kcmp': 312, 'pidfd_getfd': 438, 'fanotify_init': 300,
                     'lookup_dcookie': 212, 'quotactl': 179, 'move_mount': 429, 'open_tree': 428, 'fsopen': 430,
                     'mount_setattr': 442, 'syslog': 103, 'vhangup': 153, 'move_pages': 279, 'clone3': 435}
            # Of the agent, whatever else a program may read and write.
            iov = (ctypes.c_long * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8)
            for name in 'process_vm_readv', 'process_vm_writev':
                if l.syscall(calls[name], 1, iov, 1, iov, 1, 0) != -1: print(name + '-of-the-agent')
            def refused(result): return result == -1 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS)
            # In a process of its own: who asks to be traced stands still at its next signal.
            child = os.fork()
            if child == 0: os._exit(0 if refused(l.syscall(calls.pop('ptrace'), 0, 0, 0, 0)) else 1)
            calls.pop('ptrace')
            if os.waitpid(child, 0)[1] != 0: print('ptrace')
            for name, number in calls.items():
                ctypes.set_errno(0)
                if not refused(l.syscall(number, 0, 0, 0, 0, 0)): print(name)
            ctypes.set_errno(0)
            child = l.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)
            if child == 0: os._exit(0)
            if child != -1: print('clone')
            """);

    assertThat(outcome.text().lines()).containsExactlyInAnyOrderElementsOf(filter().allows());
    assertThat(outcome.exitCode()).as(outcome.errors()).isZero();
    // Who is root of a user namespace of its own making is nobody over what was there before.
    for (String command :
        List.of("mount -o remount,rw /", "mount -t tmpfs none /etc", "ulimit -u 4096")) {
      fails(sh("unshare --user --map-root-user bash -c \"$1\"", command));
    }
  }

  // Limits.

  @Test
  void aFullDiskIsTheSandboxesOwn() throws Exception {
    if (disk() == Disk.ENDS_THE_SANDBOX) {
      endsItsOwnSandbox("head -c 100m /dev/zero > /workspace/fill; sleep 600");
      return;
    }
    Outcome outcome = sh("head -c 100m /dev/zero > /workspace/fill; stat -c %s /workspace/fill");

    assertThat(outcome.errors()).contains("No space left");
    long size = Long.parseLong(outcome.text().strip());
    switch (disk()) {
      case HARD_LIMIT -> assertThat(size).isLessThan(32L << 20);
      case MEMORY -> {
        assertThat(size).isLessThanOrEqualTo(32L << 20);
        assertThat(sh("df -B1 --output=size,avail /workspace | tail -n 1").text().strip())
            .matches((32L << 20) + " +0");
      }
      case ENDS_THE_SANDBOX -> throw new AssertionError("returned above");
    }
    assertThat(sh("rm /workspace/fill; echo again > /workspace/x; cat /workspace/x").text())
        .isEqualTo("again\n");
  }

  @Test
  void whoTakesTooMuchMemoryIsKilledAndTheAgentIsNot() throws Exception {
    String boot = bootId();
    if (kernel() == Kernel.OWN) {
      endsItsOwnSandbox("$1 -c 'x = bytearray(600 << 20); import time; time.sleep(600)'");
      assertThat(bootId()).isEqualTo(boot);
      return;
    }

    Outcome outcome = python("x = bytearray(600 << 20); print('has it')");

    assertThat(outcome.text()).isEmpty();
    assertThat(bootId()).isEqualTo(boot);
  }

  @Test
  void aFullTmpIsTheSandboxesOwn() throws Exception {
    Outcome outcome = sh("head -c 400m /dev/zero > /tmp/fill; stat -c %s /tmp/fill; rm /tmp/fill");

    assertThat(Long.parseLong(outcome.text().strip())).isLessThanOrEqualTo(tmpBytes());
  }

  @Test
  void aForkBombStaysWithinItsLimit() throws Exception {
    String boot = bootId();

    Outcome outcome =
        sh(
            "for i in $(seq 300); do sleep 20 & done 2>/dev/null; echo $(ls -d /proc/[0-9]* | wc"
                + " -l); kill $(jobs -p) 2>/dev/null");

    assertThat(
            outcome.text().lines().mapToLong(line -> Long.parseLong(line.strip())).max().orElse(0))
        .isLessThan(128);
    assertThat(bootId()).isEqualTo(boot);
  }

  // What must work.

  @ParameterizedTest
  @EnumSource
  void commonToolsWork(Tool tool) throws Exception {
    if (!tools().contains(tool)) {
      fails(sh("PATH=/usr/bin:$PATH; command -v $1", tool.program));
      return;
    }
    Outcome outcome = sh("PATH=/usr/bin:$PATH; " + tool.script);

    assertThat(outcome.text().strip()).as(outcome.errors()).isEqualTo("1");
  }
}
