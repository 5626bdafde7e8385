package dev.foredeck.cli;

import dev.foredeck.cli.Terminal.Style;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;

/// One run of `foredeck demo`: starts a control plane of its own, does the main job with one HTTP
/// request, shows it, and takes everything away again.
///
/// Threading: [#run] on one thread; [#cleanUp] on that one or on a shutdown hook's, whichever comes
/// first, and once.
final class Demo {
  private static final Duration READY = Duration.ofMinutes(3);
  private static final Duration DRAIN = Duration.ofSeconds(60);
  private static final Duration DESTROY = Duration.ofSeconds(30);
  private static final Duration PROBE = Duration.ofSeconds(3);
  private static final Duration SETTLE = Duration.ofSeconds(10);
  private static final int INTERRUPTED = 130;
  private static final String BODY = "foredeck-demo.json";

  /// What to run against.
  sealed interface Target {
    /// A control plane that the demo starts, and stops again.
    ///
    /// @param command which starts it
    /// @param scratch where its data folder is made
    /// @param host root of the file system that is searched for leftovers
    /// @param site address of this host where the gateway reaches the demo's own web site; empty:
    ///   it cannot
    /// @param daemon where sandboxes are containers of one
    record Own(
        List<String> command,
        String driver,
        Path scratch,
        Path host,
        Optional<InetAddress> site,
        Optional<DockerDaemon> daemon,
        boolean keep)
        implements Target {
      /// Whether its sandboxes and its gateway are in a cluster.
      boolean inCluster() {
        return driver.equals("kubernetes");
      }
    }

    /// One that runs already.
    ///
    /// @param shownKey how a shell gets the key, as `$(cat /x/admin.key)`
    record Running(URI url, String key, String shownKey) implements Target {}
  }

  private record Connected(ApiClient client, String shownKey) {}

  private final Terminal terminal;
  private final Target target;
  private final Path folder;
  private final List<String> pages;
  private final Optional<DemoSite> site;
  private final Map<String, String> environment;
  private final String label = UUID.randomUUID().toString().substring(0, 8);
  private final Set<String> sandboxes = ConcurrentHashMap.newKeySet();
  private final Set<String> over = ConcurrentHashMap.newKeySet();
  private final AtomicBoolean cleaning = new AtomicBoolean();
  private final AtomicBoolean mute = new AtomicBoolean();
  private volatile Optional<Path> data = Optional.empty();
  private volatile Optional<ControlPlaneProcess> process = Optional.empty();
  private volatile Optional<ApiClient> client = Optional.empty();
  private boolean clean = true;

  /// @param around whose folder gets the chart
  /// @param pages to fetch; empty for a public one where there is internet, and the demo's own
  Demo(Surroundings around, Target target, List<String> pages) {
    this.terminal = around.terminal();
    this.folder = around.folder();
    this.environment = around.environment();
    this.target = target;
    this.site =
        switch (target) {
          case Target.Own own ->
              own.site().map(address -> new DemoSite(DemoRequest.resource("page.html"), address));
          case Target.Running _ -> Optional.empty();
        };
    this.pages = pages.isEmpty() ? pages(target) : List.copyOf(pages);
  }

  private static List<String> pages(Target target) {
    List<String> pages = new ArrayList<>();
    boolean own =
        target instanceof Target.Own(_, _, _, _, Optional<InetAddress> site, _, _)
            && site.isPresent();
    if (!own || hasInternet()) {
      pages.add("http://example.com/");
    }
    if (own) {
      pages.add("http://" + DemoSite.HOST + "/");
    }
    return List.copyOf(pages);
  }

  /// @return the exit code
  int run() throws InterruptedException {
    Thread hook =
        Thread.ofPlatform()
            .unstarted(() -> {
              terminal.line();
              terminal.line("Interrupted.");
              mute.set(true);
              boolean _ = cleanUp();
            });
    Runtime.getRuntime().addShutdownHook(hook);
    boolean done = false;
    try {
      done = job();
    } catch (CommandException e) {
      if (mute.get()) {
        // What was taken down under the job's hands is no news.
        return INTERRUPTED;
      }
      throw e;
    } finally {
      boolean left = !cleanUp();
      done &= !left;
      removeHook(hook);
    }
    return done ? ExitCode.OK : ExitCode.NO;
  }

  private static void removeHook(Thread hook) {
    try {
      boolean _ = Runtime.getRuntime().removeShutdownHook(hook);
    } catch (IllegalStateException e) {
      // We are being shut down: the hook has it.
    }
  }

  private boolean job() throws InterruptedException {
    terminal.line(
        terminal.styled(
            Style.STRONG,
            "Foredeck demo: one HTTP request makes a sandbox, runs Python in it and streams it."));
    terminal.line();
    Connected connected = connect();
    byte[] body = DemoRequest.body(pages, label);
    Path bodyFile = folder.resolve(BODY);
    write(bodyFile, body);
    step(
        "POST "
            + connected.client().sandboxes()
            + "  "
            + Narrator.size(body.length)
            + ": data.csv, "
            + DemoRequest.programLines()
            + " lines of Python, policy default");
    terminal.line();
    Set<String> hosts = new HashSet<>();
    pages.forEach(page -> hosts.add(String.valueOf(URI.create(page).getHost())));
    DemoFindings findings = new DemoFindings(hosts);
    Narrator narrator = new Narrator(terminal);
    long start = System.nanoTime();
    long[] callEnd = {0};
    connected
        .client()
        .create(
            body,
            label,
            new ApiClient.Observer() {
              @Override
              public void event(LogEvent event) {
                sandboxes.add(event.sandbox());
                if (event.endsTheLog()) {
                  over.add(event.sandbox());
                }
                if (event.type().equals("call.ended")) {
                  callEnd[0] = System.nanoTime();
                }
                findings.see(event);
                if (!mute.get()) {
                  narrator.show(event);
                }
              }

              @Override
              public void resuming(long after, String why) {
                if (callEnd[0] == 0 && !mute.get()) {
                  narrator.note("connection lost (" + why + "): going on after event " + after);
                }
              }
            });
    terminal.line();
    return report(findings, Duration.ofNanos(callEnd[0] - start), connected, bodyFile);
  }

  private Connected connect() throws InterruptedException {
    return switch (target) {
      case Target.Own own -> start(own);
      case Target.Running running -> {
        ApiClient made = new ApiClient(running.url(), running.key(), ApiClient.Patience.DEFAULT);
        client = Optional.of(made);
        yield new Connected(made, running.shownKey());
      }
    };
  }

  private Connected start(Target.Own own) throws InterruptedException {
    Path made;
    int port;
    try {
      made =
          Files.createDirectory(
              own.scratch().resolve("foredeck-demo-" + label),
              PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
      data = Optional.of(made);
      // Sandboxes are users of their own: they pass through to what is theirs, and list nothing.
      Files.setPosixFilePermissions(made, PosixFilePermissions.fromString("rwx--x--x"));
      port = freePort();
    } catch (IOException e) {
      throw new CommandException(
          ExitCode.CANNOT, "no data folder in " + own.scratch() + ": " + e.getMessage(), e);
    }
    Map<String, String> settings = new HashMap<>();
    settings.put("FOREDECK_LISTEN", "127.0.0.1:" + port);
    settings.put("FOREDECK_DATA", made.toString());
    settings.put("FOREDECK_DRIVER", own.driver());
    if (own.inCluster()) {
      // Namespaces of this run, with a gateway of its own; they go with the control plane.
      settings.put("FOREDECK_KUBERNETES_INSTALL", "temporary");
      // Pods reserve what they may use: warm ones would take a small cluster's only node.
      settings.put("FOREDECK_POOLS", "off");
      settings.put("FOREDECK_KUBERNETES_NAMESPACE", "foredeck-demo-" + label);
      settings.put("FOREDECK_KUBERNETES_GATEWAY_NAMESPACE", "foredeck-demo-" + label + "-gateway");
    }
    site.ifPresent(served -> settings.put("FOREDECK_EGRESS_PINS", served.pin()));
    step("starting the control plane (driver " + own.driver() + ", data in " + made + ") …");
    long start = System.nanoTime();
    ControlPlaneProcess child = launch(own.command(), settings);
    URI url =
        child.awaitReady(READY, waited -> step("still starting, " + waited.toSeconds() + " s …"));
    step(
        String.format(
            Locale.ROOT, "ready at %s after %.1f s", url, (System.nanoTime() - start) / 1e9));
    Path keyFile = made.resolve("admin.key");
    String key;
    try {
      key = Files.readString(keyFile).strip();
    } catch (IOException e) {
      throw new CommandException(
          ExitCode.CANNOT, "the control plane wrote no key to " + keyFile, e);
    }
    ApiClient connected = new ApiClient(url, key, ApiClient.Patience.DEFAULT);
    client = Optional.of(connected);
    return new Connected(connected, "$(cat " + ShellWords.quote(keyFile.toString()) + ")");
  }

  /// Not while, or after, everything is taken down.
  private synchronized ControlPlaneProcess launch(
      List<String> command, Map<String, String> settings) {
    if (cleaning.get()) {
      throw new CommandException(INTERRUPTED, "interrupted");
    }
    ControlPlaneProcess child = ControlPlaneProcess.start(command, settings);
    process = Optional.of(child);
    return child;
  }

  private boolean report(
      DemoFindings findings, Duration total, Connected connected, Path bodyFile) {
    boolean done = true;
    for (DemoFindings.Part part : findings.parts()) {
      done &= part.done();
      terminal.line(mark(part.done()) + " " + part.name() + " (" + part.how() + ")");
    }
    List<String> timings = new ArrayList<>();
    findings.createToReady().ifPresent(time -> timings.add("create to ready " + millis(time)));
    findings
        .readyToFirstByte()
        .ifPresent(time -> timings.add("ready to first byte " + millis(time)));
    timings.add("request to end of the call " + millis(total));
    terminal.line("  " + String.join(", ", timings));
    terminal.line();
    terminal.line("The request, as a curl line:");
    terminal.line();
    terminal.line(
        "  curl -sSN "
            + connected.client().sandboxes()
            + " -H \"Authorization: Bearer "
            + connected.shownKey()
            + "\" -H 'Content-Type: application/json' -H 'Accept: text/event-stream' --data-binary"
            + " @"
            + ShellWords.quote(bodyFile.getFileName().toString()));
    terminal.line();
    findings
        .chart()
        .ifPresent(chart -> {
          Path file = folder.resolve(DemoRequest.CHART);
          write(file, chart);
          terminal.line("The chart is in " + file);
        });
    terminal.line("The request's body is in " + bodyFile);
    if (target instanceof Target.Own) {
      terminal.line(
          terminal.styled(
              Style.FAINT,
              "To send it again: ./foredeck up prints a URL and where its key is; put both into the"
                  + " curl line."));
    }
    terminal.line();
    return done;
  }

  /// Destroys the sandbox where it still is, stops what was started and looks for what is left.
  ///
  /// @return whether nothing is
  synchronized boolean cleanUp() {
    if (!cleaning.compareAndSet(false, true)) {
      return clean;
    }
    try {
      clean = takeDown();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      clean = false;
    } finally {
      client.ifPresent(ApiClient::close);
      site.ifPresent(DemoSite::close);
    }
    return clean;
  }

  private boolean takeDown() throws InterruptedException {
    boolean gone = destroySandboxes();
    if (!(target instanceof Target.Own own) || data.isEmpty()) {
      return gone;
    }
    boolean stopped = true;
    if (process.isPresent()) {
      OptionalInt exit = process.get().stop(DRAIN);
      stopped = exit.isPresent() && exit.getAsInt() == 0;
      String how =
          exit.isPresent()
              ? "stopped with exit code " + exit.getAsInt()
              : "did not stop within " + DRAIN.toSeconds() + " s of SIGTERM and was killed";
      terminal.line(mark(stopped) + " the control plane " + how);
      if (!stopped) {
        terminal.line("  it wrote last:" + process.get().said());
      }
    }
    return removeData(own, data.get()) && gone && stopped;
  }

  private boolean destroySandboxes() throws InterruptedException {
    if (client.isEmpty()) {
      return true;
    }
    boolean gone = true;
    try {
      // Also what was asked for and never heard of: by its label.
      Set<String> alive = new TreeSet<>(sandboxes);
      alive.removeAll(over);
      if (sandboxes.isEmpty()) {
        alive.addAll(client.get().live("demo=" + label));
        sandboxes.addAll(alive);
      }
      for (String sandbox : alive) {
        boolean ended = client.get().destroy(sandbox, DESTROY);
        gone &= ended;
        terminal.line(
            mark(ended) + " sandbox " + sandbox + (ended ? " destroyed" : " is still there"));
      }
    } catch (CommandException e) {
      gone = false;
      terminal.line(mark(false) + " the sandbox may still be there: " + e.text());
    }
    return gone;
  }

  private boolean removeData(Target.Own own, Path folderOfData) throws InterruptedException {
    Leftovers leftovers = new Leftovers(own.host(), folderOfData, sandboxes, own.daemon());
    List<String> left = leftovers.find();
    long end = System.nanoTime() + SETTLE.toNanos();
    try {
      leftovers.removeFrame();
      left = leftovers.find();
      while (!left.isEmpty() && System.nanoTime() < end) {
        Thread.sleep(100);
        leftovers.removeFrame();
        left = leftovers.find();
      }
      if (left.isEmpty() && !own.keep()) {
        Leftovers.removeTree(folderOfData);
      }
    } catch (IOException e) {
      left = new ArrayList<>(left);
      left.add("folder " + folderOfData + ": " + e);
    }
    if (left.isEmpty()) {
      terminal.line(
          mark(true)
              + (own.keep()
                  ? " nothing runs any more; the data folder is kept: " + folderOfData
                  : " nothing is left: no process, mount, loop device, cgroup, socket or folder"
                      + (own.inCluster() ? ", and in the cluster no namespace" : "")
                      + (own.daemon().isPresent() ? ", and no container or volume" : "")));
      return true;
    }
    terminal.line(mark(false) + " this is left:");
    left.forEach(thing -> terminal.line("  " + Terminal.harmless(thing)));
    terminal.line("  the data folder is kept: " + folderOfData);
    return false;
  }

  private void step(String text) {
    terminal.line(terminal.styled(Style.ACCENT, "▸") + " " + text);
  }

  private String mark(boolean good) {
    return good ? terminal.styled(Style.GOOD, "✓") : terminal.styled(Style.BAD, "✗");
  }

  private static String millis(Duration time) {
    return time.toMillis() + " ms";
  }

  /// Replaces a file as a whole, and a link by that name itself, never what it points to. Under
  /// sudo the file belongs to who called sudo.
  private void write(Path file, byte[] bytes) {
    try {
      Path made = Files.createTempFile(folder, ".foredeck-demo-", ".new");
      try {
        Files.write(made, bytes);
        Files.setPosixFilePermissions(made, PosixFilePermissions.fromString("rw-r--r--"));
        String caller = environment.getOrDefault("SUDO_UID", "");
        if (caller.matches("[0-9]{1,9}")) {
          Files.setAttribute(made, "unix:uid", Integer.parseInt(caller));
        }
        Files.move(made, file, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
      } finally {
        Files.deleteIfExists(made);
      }
    } catch (IOException e) {
      throw new CommandException(
          ExitCode.CANNOT, file + " cannot be written: " + e.getMessage(), e);
    }
  }

  private static int freePort() throws IOException {
    try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      return socket.getLocalPort();
    }
  }

  /// Whether a public site answers a TCP connection, from an address that the gateway would admit.
  private static boolean hasInternet() {
    AtomicBoolean found = new AtomicBoolean();
    Thread probe =
        Thread.ofVirtual()
            .start(() -> {
              try {
                for (InetAddress address : InetAddress.getAllByName("example.com")) {
                  if (isPublic(address) && answers(address)) {
                    found.set(true);
                  }
                }
              } catch (IOException e) {
                // No internet here: the demo's own site will do.
              }
            });
    try {
      boolean _ = probe.join(PROBE);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    return found.get();
  }

  /// An intranet's resolver may have addresses of its own for public names.
  private static boolean isPublic(InetAddress address) {
    return !(address.isLoopbackAddress()
        || address.isSiteLocalAddress()
        || address.isLinkLocalAddress()
        || address.isAnyLocalAddress());
  }

  private static boolean answers(InetAddress address) {
    try (Socket socket = new Socket()) {
      socket.connect(new InetSocketAddress(address, 80), 1_000);
      return true;
    } catch (IOException e) {
      return false;
    }
  }
}
