package dev.foredeck.driver.local;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.AgentDialogue;
import dev.foredeck.core.driver.AgentDialogue.Outcome;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.host.UidSlots;
import dev.foredeck.driver.host.WritablePlaces;
import dev.foredeck.policy.Boundary;
import dev.foredeck.protocol.Message;
import java.net.InetAddress;
import java.net.NetworkInterface;
import java.net.ServerSocket;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// From inside a sandbox, through its agent, as any program of a user: what must not work does not
/// work. Two sandboxes: the one that tries, and a neighbour that must not be touched.
class EscapeIT {
  private static final Duration TIMEOUT = Duration.ofSeconds(30);
  private static final String TOKEN = "the-token-of-this-sandbox";
  private static final String NEIGHBOUR_TOKEN = "the-token-of-the-neighbour";
  private static final Id SANDBOX = Bench.id("inside");
  private static final Id NEIGHBOUR = Bench.id("neighbour");
  private static final AtomicInteger CALLS = new AtomicInteger();
  private static Bench bench;
  private static LocalDriver driver;

  @BeforeAll
  static void launch() throws Exception {
    bench = Bench.make();
    driver = bench.driver();
    driver.launch(spec(SANDBOX, TOKEN), TIMEOUT);
    driver.launch(spec(NEIGHBOUR, NEIGHBOUR_TOKEN), TIMEOUT);
  }

  @AfterAll
  static void destroy() throws Exception {
    driver.destroy(SANDBOX, TIMEOUT);
    driver.destroy(NEIGHBOUR, TIMEOUT);
    driver.close();
    bench.close();
  }

  private static LaunchSpec spec(Id id, String token) {
    return new LaunchSpec(
        id,
        Bench.id("tenant"),
        "host",
        new Resources(1000, 256L << 20, 32L << 20, 128),
        Boundary.NONE,
        token,
        Map.of(),
        Instant.EPOCH);
  }

  private static Outcome run(Id id, String token, String... argv) throws Exception {
    String call = "call%016d".formatted(CALLS.incrementAndGet());
    Outcome outcome = AgentDialogue.run(driver.connect(id, token, TIMEOUT), call, argv);
    assertThat(AgentDialogue.ask(driver.connect(id, token, TIMEOUT), new Message.Release(call)))
        .isEqualTo(new Message.Done());
    return outcome;
  }

  private static Outcome sh(String script, String... arguments) throws Exception {
    String[] argv = new String[4 + arguments.length];
    argv[0] = "bash";
    argv[1] = "-c";
    argv[2] = script;
    argv[3] = "bash";
    System.arraycopy(arguments, 0, argv, 4, arguments.length);
    return run(SANDBOX, TOKEN, argv);
  }

  private static Outcome python(String script, String... arguments) throws Exception {
    String[] argv = new String[3 + arguments.length];
    argv[0] = "/usr/bin/python3";
    argv[1] = "-c";
    argv[2] = script;
    System.arraycopy(arguments, 0, argv, 3, arguments.length);
    return run(SANDBOX, TOKEN, argv);
  }

  private static void fails(Outcome outcome) {
    assertThat(outcome.ended()).as("the program ran").isNotNull();
    assertThat(outcome.exitCode()).as("%s%s", outcome.text(), outcome.errors()).isNotZero();
  }

  /// Whatever a test did: both sandboxes go on.
  @AfterEach
  void bothSandboxesGoOn() throws Exception {
    assertThat(driver.inspect(SANDBOX, TIMEOUT).orElseThrow().status()).isEqualTo(Status.RUNNING);
    assertThat(run(NEIGHBOUR, NEIGHBOUR_TOKEN, "echo", "fine").text()).isEqualTo("fine\n");
  }

  // Network.

  @Test
  void doesNotReachAnyAddressOfTheHost() throws Exception {
    try (ServerSocket everywhere = new ServerSocket(0)) {
      String port = Integer.toString(everywhere.getLocalPort());
      for (NetworkInterface network : Collections.list(NetworkInterface.getNetworkInterfaces())) {
        for (InetAddress address : Collections.list(network.getInetAddresses())) {
          String host = address.getHostAddress().replaceAll("%.*", "");
          fails(sh("exec 3<>/dev/tcp/$1/$2", host, port));
        }
      }
      everywhere.setSoTimeout(1);
      assertThat(CALLS.get()).isPositive();
      org.assertj.core.api.Assertions.assertThatThrownBy(everywhere::accept)
          .isInstanceOf(java.net.SocketTimeoutException.class);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"192.88.99.1", "169.254.169.254", "10.0.0.1", "2001:db8::1"})
  void hasNoRoute(String address) throws Exception {
    Outcome outcome = sh("exec 3<>/dev/tcp/$1/80", address);

    fails(outcome);
    assertThat(outcome.errors()).contains("unreachable");
  }

  @Test
  void hasLoopbackAndNothingElse() throws Exception {
    assertThat(sh("cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' '").text()).isEqualTo("lo\n");
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
            import socket
            tries = [(socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, socket.SOCK_RAW, 0),
                     (40, socket.SOCK_STREAM, 0), (38, socket.SOCK_SEQPACKET, 0), (socket.AF_NETLINK, socket.SOCK_RAW, 9)]
            for t in tries:
                try:
                    socket.socket(*t); print('made', t)
                except OSError:
                    pass
            """);

    assertThat(outcome.text()).isEmpty();
    assertThat(outcome.exitCode()).isZero();
  }

  @Test
  void doesNotReachAbstractSocketsOfTheHost() throws Exception {
    // Java has none in the abstract name space, so a program of the host listens.
    Process listener =
        new ProcessBuilder(
                "/usr/bin/python3",
                "-c",
                "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind('\\0foredeck-escape');"
                    + " s.listen(); print('on', flush=True); sys.stdin.read()")
            .start();
    try {
      assertThat(listener.inputReader().readLine()).isEqualTo("on");
      fails(python("import socket; socket.socket(socket.AF_UNIX).connect('\\0foredeck-escape')"));
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
    for (String folder : WritablePlaces.OFFERED) {
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
            "grep -v -E ' /proc[ /]' /proc/self/mountinfo | cut -d' ' -f5,6 | grep ' rw,'"
                + " | while read m _; do find $m -xdev -writable -not -type l; done 2>/dev/null"
                + " | sort -u; ls -la /run/foredeck >&2");
    assertThat(outcome.text()).contains("/workspace\n");
    assertThat(outcome.text().lines())
        .allMatch(path ->
            WritablePlaces.OFFERED.stream().anyMatch(Path.of(path)::startsWith)
                || path.matches("/dev/(null|zero|full|random|urandom|tty|ptmx|pts/ptmx)")
                // Sockets of this sandbox's own: connecting is all that can be done.
                || path.matches("/run/foredeck/(agent|egress)\\.sock"));
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
    Outcome outcome = sh("cat $1/. 2>/dev/null || cat $1 || ls $1/", path);

    assertThat(outcome.text()).as(path).isEmpty();
  }

  @Test
  void seesNothingOfTheControlPlaneAndItsNeighbour() throws Exception {
    Path secret = bench.config.dataDir().resolve("secret");
    Files.writeString(secret, "secret");
    for (Path path :
        List.of(
            secret,
            bench.config.dataDir(),
            bench.config.runDir(),
            bench.config.socketFolder(NEIGHBOUR),
            bench.config.folder(NEIGHBOUR).path())) {
      fails(sh("ls $1", path.toString()));
      fails(sh("cd /workspace; ln -sfn $1 link; ls link/", path.toString()));
    }
    assertThat(sh("cat /proc/*/cmdline | tr '\\0' ' '").text()).doesNotContain("runc");
    assertThat(sh("ls -d /proc/[0-9]* | wc -l").text().strip()).matches("[0-9]");
  }

  @Test
  void theNeighboursWorkspaceIsAnother() throws Exception {
    assertThat(
            run(NEIGHBOUR, NEIGHBOUR_TOKEN, "sh", "-c", "echo mine > /workspace/private")
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
              driver.connect(SANDBOX, TOKEN, TIMEOUT), new Message.ReadFile(path, 0, 1000));
      assertThat(answer).isInstanceOf(Message.Failure.class);
    }
  }

  // The agent and its socket.

  @Test
  void theAgentsSecretIsHiddenAndItsSocketGivesNothing() throws Exception {
    assertThat(sh("env; cat /proc/1/environ /proc/*/environ 2>/dev/null | tr '\\0' '\\n'").text())
        .doesNotContain(TOKEN);
    // Diallers without the token are turned away, and the agent goes on being heard.
    Outcome outcome =
        python(
            """
            import socket
            for i in range(20):
                s = socket.socket(socket.AF_UNIX); s.settimeout(10)
                try:
                    s.connect('/run/foredeck/agent.sock')
                    s.sendall(b'\\x00\\x00\\x00\\x05hello')
                    if s.recv(1): print('answered')
                except OSError:
                    pass
            """);
    assertThat(outcome.text()).isEmpty();
    assertThat(sh("echo still here").text()).isEqualTo("still here\n");
  }

  @Test
  void theSocketFolderCannotBeChanged() throws Exception {
    fails(sh("rm -f /run/foredeck/agent.sock"));
    fails(sh("mv /run/foredeck/agent.sock /run/foredeck/other"));
    fails(sh("ln -s /etc/passwd /run/foredeck/egress.sock"));
    fails(sh("chmod 777 /run/foredeck"));
  }

  @Test
  void egressIsOnlyWhatListensInTheSandboxesOwnFolder() throws Exception {
    Path own = bench.config.socketFolder(SANDBOX).resolve("egress.sock");
    try (ServerSocketChannel gateway = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      gateway.bind(UnixDomainSocketAddress.of(own));
      Files.setPosixFilePermissions(
          own, java.nio.file.attribute.PosixFilePermissions.fromString("rw-rw-rw-"));
      assertThat(
              python(
                      "import socket;"
                          + " socket.socket(socket.AF_UNIX).connect('/run/foredeck/egress.sock');"
                          + " print('connected')")
                  .text())
          .isEqualTo("connected\n");
      assertThat(run(NEIGHBOUR, NEIGHBOUR_TOKEN, "ls", "/run/foredeck").text())
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
    sh("for s in KILL STOP TERM INT HUP TSTP USR2; do kill -$s 1; done");
    sh("kill -KILL -1");
    fails(
        python(
            "import ctypes,os; l=ctypes.CDLL(None, use_errno=True);"
                + " r=l.ptrace(16, 1, 0, 0); print(r); exit(0 if r == 0 else 1)"));
    fails(sh("head -c 1 /proc/1/mem"));
    assertThat(bootId()).isEqualTo(boot);
  }

  private static String bootId() throws Exception {
    var agent = driver.connect(SANDBOX, TOKEN, TIMEOUT);
    assertThat(AgentDialogue.ask(agent, new Message.Ping())).isEqualTo(new Message.Done());
    return agent.greeting().bootId();
  }

  // Privileges.

  @Test
  void hasNoPrivilege() throws Exception {
    Outcome status = sh("cat /proc/self/status; cat /proc/self/uid_map; id -u");

    assertThat(status.text())
        .containsPattern("CapEff:\\s0+\\n")
        .containsPattern("CapPrm:\\s0+\\n")
        .containsPattern("CapBnd:\\s0+\\n")
        .containsPattern("NoNewPrivs:\\s1\\n")
        .containsPattern("Seccomp:\\s2\\n")
        .endsWith("\n1000\n");
    assertThat(status.text().lines().filter(line -> line.matches("\\s+0\\s+\\d+\\s+65536")))
        .as("user 0 is none of the host's")
        .singleElement()
        .satisfies(line ->
            assertThat(Long.parseLong(line.strip().split("\\s+")[1]))
                .isGreaterThanOrEqualTo(UidSlots.FIRST));
  }

  @Test
  void setuidProgramsGiveNothing() throws Exception {
    assertThat(
            sh("for p in su sudo mount passwd newgrp ping; do f=$(command -v $p) && $f -h"
                    + " >/dev/null 2>&1; done; cp /usr/bin/id /workspace/id; chmod 6755"
                    + " /workspace/id; /workspace/id -u")
                .text())
        .isEqualTo("1000\n");
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
    fails(sh("PATH=$PATH:/usr/sbin:/sbin; " + command));
  }

  @Test
  void dangerousSystemCallsAreRefused() throws Exception {
    // By number on x86-64: what must fail whatever program is there. ENOSYS is as good as EPERM.
    Outcome outcome =
        python(
            """
            import ctypes, errno, platform
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
            for name, number in calls.items():
                ctypes.set_errno(0)
                result = l.syscall(number, 0, 0, 0, 0, 0)
                if result != -1 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
                    print(name, result, ctypes.get_errno())
            ctypes.set_errno(0)
            if l.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) != -1: print('clone NEWUSER')
            """);

    assertThat(outcome.text()).isEmpty();
    assertThat(outcome.exitCode()).as(outcome.errors()).isZero();
  }

  // Limits.

  @Test
  void aFullDiskIsTheSandboxesOwn() throws Exception {
    Outcome outcome = sh("head -c 100m /dev/zero > /workspace/fill; stat -c %s /workspace/fill");

    assertThat(outcome.errors()).contains("No space left");
    assertThat(Long.parseLong(outcome.text().strip())).isLessThan(32L << 20);
    assertThat(sh("rm /workspace/fill; echo again > /workspace/x; cat /workspace/x").text())
        .isEqualTo("again\n");
  }

  @Test
  void whoTakesTooMuchMemoryIsKilledAndTheAgentIsNot() throws Exception {
    String boot = bootId();

    Outcome outcome = python("x = bytearray(600 << 20); print('has it')");

    assertThat(outcome.text()).isEmpty();
    assertThat(bootId()).isEqualTo(boot);
  }

  @Test
  void aFullTmpIsTheSandboxesOwn() throws Exception {
    Outcome outcome = sh("head -c 400m /dev/zero > /tmp/fill; stat -c %s /tmp/fill; rm /tmp/fill");

    assertThat(Long.parseLong(outcome.text().strip())).isLessThanOrEqualTo(128L << 20);
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
  @ValueSource(
      strings = {
        "python3 -c 'import threading, ssl, json; t=threading.Thread(target=print, args=(1,));"
            + " t.start(); t.join()'",
        "node -e 'console.log(1)'",
        "git init -q /workspace/repo && cd /workspace/repo && git -c user.name=x -c user.email=x@x"
            + " commit -q --allow-empty -m x && git log --oneline | wc -l",
        "printf 'int main(){return 0;}' > /workspace/a.c && gcc -o /workspace/a /workspace/a.c &&"
            + " /workspace/a && echo 1",
        "perl -e 'print 1'",
        "mktemp >/dev/null && date >/dev/null && ls -la /workspace >/dev/null && echo 1",
        "getent hosts localhost | wc -l",
        "script -qc 'echo 1' /dev/null | tr -d '\\r'"
      })
  void commonToolsWork(String command) throws Exception {
    String tool = command.split(" ")[0];
    if (sh("command -v $1", tool).exitCode() != 0) {
      // Not on this host: the template is the host.
      return;
    }
    Outcome outcome = sh("PATH=/usr/bin:$PATH; " + command);

    assertThat(outcome.text().strip()).as(outcome.errors()).isEqualTo("1");
  }
}
