package dev.foredeck.benchmarks;

import com.fasterxml.jackson.databind.JsonNode;
import dev.foredeck.policy.Action;
import dev.foredeck.policy.Decision;
import dev.foredeck.policy.Policy;
import dev.foredeck.policy.PolicyCompiler;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.LocalDate;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/// `./foredeck bench [REPORT]`: starts a control plane on the local driver, measures it through its
/// front door beside baselines of the same host in the same run, and writes one report (default
/// `docs/benchmarks.md`). Talks to loopback alone; bounded.
public final class Main {
  private static final int COLD = 30;
  private static final int CALLS = 300;
  private static final int OUTPUT_BYTES = 60_000_000;
  private static final int WARM = 60;

  /// What is measured warm; what is measured cold asks for other resources.
  private static final String POOL = "host+memory=320Mi+disk=64Mi:4";

  private static final String POOLED = "\"resources\":{\"memory\":\"320Mi\",\"disk\":\"64Mi\"}";
  private static final String SMALL = "\"resources\":{\"memory\":\"256Mi\",\"disk\":\"64Mi\"}";

  private final List<String> rows = new ArrayList<>();
  private final List<String> notes = new ArrayList<>();

  private Main() {}

  public static void main(String[] arguments) throws Exception {
    if (arguments.length > 1 || (arguments.length == 1 && arguments[0].startsWith("-"))) {
      System.err.println(
          "usage: ./foredeck bench [FILE]: measures for about two minutes, and writes the report to"
              + " FILE (docs/benchmarks.md)");
      System.exit(2);
    }
    new Main().run(Path.of(arguments.length > 0 ? arguments[0] : "docs/benchmarks.md"));
  }

  private void run(Path report) throws Exception {
    Path data = Files.createTempDirectory(Path.of("/var/tmp"), "foredeck-bench-");
    Files.setPosixFilePermissions(data, PosixFilePermissions.fromString("rwxr-xr-x"));
    int port;
    try (ServerSocket socket = new ServerSocket(0)) {
      port = socket.getLocalPort();
    }
    ProcessBuilder builder = new ProcessBuilder(System.getenv("FOREDECK_UP_COMMAND").split(" "));
    builder.environment().remove("FOREDECK_UP_COMMAND");
    builder.environment().put("FOREDECK_LISTEN", "127.0.0.1:" + port);
    builder.environment().put("FOREDECK_DATA", data.toString());
    builder.environment().put("FOREDECK_LOG", "warn");
    builder.environment().put("FOREDECK_POOLS", POOL);
    builder.redirectError(ProcessBuilder.Redirect.INHERIT);
    long began = System.nanoTime();
    Process plane = builder.start();
    try (BufferedReader out =
        new BufferedReader(new InputStreamReader(plane.getInputStream(), StandardCharsets.UTF_8))) {
      String line = out.readLine();
      if (line == null || !line.startsWith("foredeck ready ")) {
        throw new IOException("the control plane did not become ready: " + line);
      }
      notes.add(
          String.format(
              Locale.ROOT,
              "Control plane from exec to ready, first start (initdb and host probe included): %.1f"
                  + " s.",
              (System.nanoTime() - began) / 1e9));
      Api api =
          new Api(
              line.substring("foredeck ready ".length()),
              Files.readString(data.resolve("admin.key")).strip());
      creates(api);
      claims(api);
      calls(api, data);
      throughput(api);
      idle(api);
    } finally {
      plane.destroy();
      if (!plane.waitFor(60, TimeUnit.SECONDS)) {
        plane.destroyForcibly();
      }
      removeTree(data);
    }
    gate();
    decisions();
    write(report);
  }

  private void creates(Api api) throws Exception {
    String body = "{" + SMALL + ",\"run\":{\"argv\":[\"echo\",\"hello\"]}}";
    String python = "{" + SMALL + ",\"run\":{\"language\":\"python\",\"code\":\"print(1)\"}}";
    double[] ready = new double[COLD];
    double[] first = new double[COLD];
    double[] whole = new double[COLD];
    double[] code = new double[COLD];
    for (int i = -3; i < COLD; i++) {
      Api.Times times = api.stream("/v1/sandboxes", body);
      Api.Times pythonTimes = api.stream("/v1/sandboxes", python);
      if (i >= 0) {
        ready[i] = times.millis("sandbox.phase:ready");
        first[i] = times.millis("output");
        whole[i] = times.millis("sandbox.phase:gone");
        code[i] = pythonTimes.millis("output");
      }
    }
    rows.add(new Samples("cold create -> ready, local driver", ready).row("p50 700"));
    rows.add(new Samples("cold create -> first output byte of `echo`", first).row("-"));
    rows.add(new Samples("cold create -> first output byte of Python", code).row("-"));
    rows.add(new Samples("cold create -> run -> gone, one request", whole).row("-"));
    rows.add(runcRun().row("baseline"));
  }

  /// The same from a pool that is full at each request, as it is for who comes now and then.
  private void claims(Api api) throws Exception {
    Samples echo =
        claims(
            api,
            "claim from the pool -> first output byte of `echo`",
            "{" + POOLED + ",\"run\":{\"argv\":[\"echo\",\"hello\"]}}");
    rows.add(echo.row("10 / 40"));
    Samples python =
        claims(
            api,
            "claim from the pool -> first output byte of Python",
            "{" + POOLED + ",\"run\":{\"language\":\"python\",\"code\":\"print(1)\"}}");
    rows.add(python.row("p50 20"));
  }

  private static Samples claims(Api api, String name, String body) throws Exception {
    double[] first = new double[WARM];
    for (int i = -5; i < WARM; i++) {
      api.awaitFullPool();
      Api.Times times = api.stream("/v1/sandboxes", body);
      if (!times.claimed()) {
        throw new IOException("the pool was full, and the sandbox was not claimed from it");
      }
      if (i >= 0) {
        first[i] = times.millis("output");
      }
    }
    return new Samples(name, first);
  }

  /// The least that a container can cost here: `runc run` of `true` with namespaces and a bound
  /// /usr.
  private static Samples runcRun() throws Exception {
    Path bundle = Files.createTempDirectory(Path.of("/var/tmp"), "foredeck-runc-");
    try {
      Path root = Files.createDirectories(bundle.resolve("rootfs"));
      for (String name : List.of("usr", "proc", "dev")) {
        Files.createDirectories(root.resolve(name));
      }
      for (String link : List.of("bin", "lib", "lib64", "sbin")) {
        if (Files.isSymbolicLink(Path.of("/" + link))) {
          Files.createSymbolicLink(root.resolve(link), Path.of("usr/" + link));
        }
      }
      Files.writeString(
          bundle.resolve("config.json"),
          """
          {"ociVersion":"1.0.2","process":{"terminal":false,"user":{"uid":0,"gid":0},"args":["/usr/bin/true"],"env":["PATH=/usr/bin"],"cwd":"/"},
           "root":{"path":"rootfs","readonly":true},
           "mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/usr","type":"bind","source":"/usr","options":["rbind","ro"]}],
           "linux":{"namespaces":[{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"}]}}
          """);
      int[] n = {0};
      return Samples.measure(
          "baseline: `runc run` of `true`, no user namespace",
          2,
          COLD,
          () ->
              command(
                  "runc",
                  "run",
                  "--bundle",
                  bundle.toString(),
                  "foredeck-bench-" + ProcessHandle.current().pid() + "-" + n[0]++));
    } finally {
      removeTree(bundle);
    }
  }

  private void calls(Api api, Path data) throws Exception {
    String sandbox = api.readySandbox("{" + SMALL + ",\"ttl\":\"30m\"}");
    String path = "/v1/sandboxes/" + sandbox + "/calls";
    Samples plane =
        Samples.measure(
            "exec of `true` through the whole plane (HTTP, gate, record, agent, record)",
            50,
            CALLS,
            () -> api.post(path, "{\"tool\":\"process.start\",\"argv\":[\"true\"]}"));
    Samples bare = bareForkExec();
    rows.add(plane.row(String.format(Locale.ROOT, "p50 bare + 4 = %.2f", bare.percentile(50) + 4)));
    rows.add(bare.row("baseline"));
    rows.add(runcExec(data, sandbox).row("baseline"));
    Samples stat =
        Samples.measure(
            "`file.stat` through the whole plane (two commits, no process)",
            50,
            CALLS,
            () -> api.get("/v1/sandboxes/" + sandbox + "/files/?stat=1"));
    rows.add(stat.row("-"));
    api.destroy(sandbox);
  }

  /// `posix_spawn` and `waitpid` of `true` by a small process, measured inside it: what the host
  /// itself costs.
  private static Samples bareForkExec() throws Exception {
    String program =
        "import os,time\n"
            + "for i in range("
            + CALLS
            + "):\n"
            + " t=time.perf_counter()\n"
            + " os.waitpid(os.posix_spawn('/bin/true',['true'],{}),0)\n"
            + " print((time.perf_counter()-t)*1000)\n";
    List<String> lines = command("/usr/bin/python3", "-c", program);
    return new Samples(
        "baseline: bare fork+exec of `true`",
        lines.stream().mapToDouble(Double::parseDouble).toArray());
  }

  private static Samples runcExec(Path data, String sandbox) throws Exception {
    Path run;
    try (Stream<Path> runs = Files.list(Path.of("/run"))) {
      run =
          runs.filter(p -> p.getFileName().toString().startsWith("foredeck-"))
              .flatMap(Main::below)
              .filter(p -> Files.exists(p.resolve(sandbox).resolve("state.json")))
              .findFirst()
              .orElseThrow(() ->
                  new IOException(
                      "no runc state of " + sandbox + " below /run (data " + data + ")"));
    }
    return Samples.measure(
        "baseline: `runc exec` of `true` in the same sandbox",
        3,
        60,
        () -> command("runc", "--root", run.toString(), "exec", sandbox, "/usr/bin/true"));
  }

  private static Stream<Path> below(Path folder) {
    try (Stream<Path> tree = Files.walk(folder, 2)) {
      return tree.filter(Files::isDirectory).toList().stream();
    } catch (IOException | java.io.UncheckedIOException _) {
      return Stream.empty();
    }
  }

  private void throughput(Api api) throws Exception {
    String sandbox = api.readySandbox("{\"ttl\":\"30m\"}");
    double[] rates = new double[5];
    for (int i = 0; i < rates.length; i++) {
      long began = System.nanoTime();
      JsonNode answer =
          api.post(
              "/v1/sandboxes/" + sandbox + "/calls",
              "{\"tool\":\"process.start\",\"argv\":[\"head\",\"-c\",\""
                  + OUTPUT_BYTES
                  + "\",\"/dev/zero\"]}");
      double seconds = (System.nanoTime() - began) / 1e9;
      JsonNode call = answer.has("call") ? answer.path("call") : answer;
      if (call.path("usage").path("outputBytes").asLong() != OUTPUT_BYTES) {
        throw new IOException("not all output was recorded: " + call.path("usage"));
      }
      rates[i] = OUTPUT_BYTES / 1e6 / seconds;
    }
    java.util.Arrays.sort(rates);
    notes.add(
        String.format(
            Locale.ROOT,
            "Output of one process, recorded in the database, %d MB, n = %d: median %.1f MB/s (%.1f"
                + " to %.1f); budget 30 MB/s.",
            OUTPUT_BYTES / 1_000_000,
            rates.length,
            rates[rates.length / 2],
            rates[0],
            rates[rates.length - 1]));
    Samples pipe =
        Samples.measure(
            "pipe",
            1,
            5,
            () ->
                command(
                    "bash",
                    "-c",
                    "head -c "
                        + OUTPUT_BYTES
                        + " /dev/zero | dd of=/var/tmp/foredeck-bench-out conv=fsync bs=64k"
                        + " status=none; rm /var/tmp/foredeck-bench-out"));
    notes.add(
        String.format(
            Locale.ROOT,
            "Baseline of the same run: the same bytes through a pipe into a file with one fsync:"
                + " %.0f MB/s.",
            OUTPUT_BYTES / 1e3 / pipe.percentile(50)));
    api.destroy(sandbox);
  }

  private void idle(Api api) throws Exception {
    String sandbox = api.readySandbox("{" + SMALL + "}");
    Thread.sleep(2000);
    long rss = 0;
    long pss = 0;
    try (Stream<Path> processes = Files.list(Path.of("/proc"))) {
      for (Path process :
          processes.filter(p -> p.getFileName().toString().matches("[0-9]+")).toList()) {
        try {
          if (Files.readString(process.resolve("cgroup")).contains(sandbox)) {
            rss += kilobytes(process.resolve("smaps_rollup"), "Rss:");
            pss += kilobytes(process.resolve("smaps_rollup"), "Pss:");
          }
        } catch (IOException _) {
          // It ended while we looked.
        }
      }
    }
    notes.add(
        String.format(
            Locale.ROOT,
            "An idle sandbox, agent included: %.1f MB resident (%.1f MB proportional); budget 50"
                + " MB.",
            rss / 1000.0,
            pss / 1000.0));
    api.destroy(sandbox);
  }

  private static long kilobytes(Path file, String key) throws IOException {
    for (String line : Files.readAllLines(file)) {
      if (line.startsWith(key)) {
        return Long.parseLong(line.replaceAll("[^0-9]", ""));
      }
    }
    return 0;
  }

  private void gate() throws Exception {
    Path folder = Files.createTempDirectory(Path.of("/var/tmp"), "foredeck-bench-");
    Files.setPosixFilePermissions(folder, PosixFilePermissions.fromString("rwxr-xr-x"));
    try {
      List<Samples> both = GateCost.measure(folder);
      rows.add(both.get(0).row("1 / 5"));
      rows.add(both.get(1).row("baseline"));
    } finally {
      removeTree(folder);
    }
  }

  /// A policy of 50 rules, a call that matches the last: measured in batches, because one decision
  /// is shorter than the clock's own cost.
  private void decisions() throws Exception {
    StringBuilder yaml =
        new StringBuilder(
            "apiVersion: foredeck/v1\nkind: SandboxPolicy\nmetadata: {name: fifty}\nrules:\n");
    for (int i = 0; i < 49; i++) {
      yaml.append("- {id: no-")
          .append(i)
          .append(", effect: deny, action: process.start, argv: [git, push, x")
          .append(i)
          .append("], reason: no}\n");
    }
    yaml.append(
        "- {id: work, effect: allow, action: process.start, when:"
            + " \"process.cwd.startsWith('/workspace')\"}\n");
    Policy policy =
        new PolicyCompiler(_ -> Optional.empty()).compile("fifty.yaml", yaml.toString());
    Action action =
        new Action.ProcessStart(
            List.of("git", "push", "origin", "main"), "/workspace/app", List.of(), false, false);
    int batch = 100;
    int[] allowed = {0};
    Samples batches =
        Samples.measure(
            "policy decision, 50 rules (mean of " + batch + " each)",
            2000,
            5000,
            () -> {
              for (int i = 0; i < batch; i++) {
                Decision decision = policy.decide(action);
                allowed[0] += decision.allowed() ? 1 : 0;
              }
            });
    if (allowed[0] == 0) {
      throw new IllegalStateException("the policy did not decide as it should");
    }
    double[] each = batches.millis().clone();
    for (int i = 0; i < each.length; i++) {
      each[i] /= batch;
    }
    rows.add(new Samples(batches.name(), each).row("p99 0.05"));
  }

  private void write(Path report) throws IOException {
    List<String> lines = new ArrayList<>();
    lines.add("# Benchmarks");
    lines.add("");
    lines.add(
        "Made by `./foredeck bench`; do not edit. One run, one machine, baselines from the same"
            + " run. Times in milliseconds.");
    lines.add("");
    lines.add("Machine: " + machine() + ". Date: " + LocalDate.now(ZoneOffset.UTC) + ".");
    lines.add("");
    lines.add("| what | n | p50 | p90 | p99 | budget |");
    lines.add("| --- | --- | --- | --- | --- | --- |");
    lines.addAll(rows);
    lines.add("");
    notes.forEach(note -> lines.add("- " + note));
    if (report.getParent() != null) {
      Files.createDirectories(report.getParent());
    }
    Files.write(report, lines);
    lines.forEach(System.out::println);
  }

  private static String machine() throws IOException {
    String model =
        Files.readAllLines(Path.of("/proc/cpuinfo")).stream()
            .filter(line -> line.startsWith("model name"))
            .findFirst()
            .map(line -> line.substring(line.indexOf(':') + 1).strip())
            .orElse("unknown processor");
    return Runtime.getRuntime().availableProcessors()
        + " cores of "
        + model
        + ", Linux "
        + System.getProperty("os.version")
        + ", Java "
        + System.getProperty("java.version");
  }

  private static List<String> command(String... words) throws IOException, InterruptedException {
    Process process = new ProcessBuilder(words).redirectErrorStream(true).start();
    List<String> lines;
    try (BufferedReader reader = process.inputReader()) {
      lines = reader.lines().toList();
    }
    if (process.waitFor() != 0) {
      throw new IOException(String.join(" ", words) + ": " + lines);
    }
    return lines;
  }

  private static void removeTree(Path root) throws IOException {
    try (Stream<Path> tree = Files.walk(root)) {
      for (Path path : tree.sorted(java.util.Comparator.reverseOrder()).toList()) {
        Files.delete(path);
      }
    }
  }
}
