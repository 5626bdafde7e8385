package dev.foredeck.benchmarks;

import com.fasterxml.jackson.databind.JsonNode;
import dev.foredeck.policy.Action;
import dev.foredeck.policy.Decision;
import dev.foredeck.policy.Policy;
import dev.foredeck.policy.PolicyCompiler;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;

/// `./foredeck bench [REPORT]` (`bench drivers` is [DriverCosts]): starts a control plane on the
/// local driver, measures it through its front door beside baselines of the same host in the same
/// run, and writes one report (default `docs/benchmarks.md`). Talks to loopback alone; bounded.
public final class Main {
  private static final int COLD = 30;
  private static final int CALLS = 300;
  private static final int OUTPUT_BYTES = 60_000_000;
  private static final int WARM = 60;

  /// What is measured warm; what is measured cold asks for other resources.
  private static final String POOL = "host+memory=320Mi+disk=64Mi:4";

  private static final String POOLED = "\"resources\":{\"memory\":\"320Mi\",\"disk\":\"64Mi\"}";
  private static final String SMALL = "\"resources\":{\"memory\":\"256Mi\",\"disk\":\"64Mi\"}";

  private final Report report = new Report("Benchmarks", "./foredeck bench");

  private Main() {}

  public static void main(String[] arguments) throws Exception {
    boolean drivers = arguments.length > 0 && arguments[0].equals("drivers");
    List<String> rest = List.of(arguments).subList(drivers ? 1 : 0, arguments.length);
    if (rest.size() > 1 || (rest.size() == 1 && rest.getFirst().startsWith("-"))) {
      System.err.println(
          """
          usage: ./foredeck bench [FILE]: measures for about two minutes, and writes the report to FILE (docs/benchmarks.md)
                 ./foredeck bench drivers [FILE]: each driver on its backend, about ten minutes (docs/benchmarks-drivers.md)\
          """);
      System.exit(2);
    }
    if (drivers) {
      Path report = Path.of(rest.isEmpty() ? "docs/benchmarks-drivers.md" : rest.getFirst());
      if (!new DriverCosts().run(report)) {
        System.err.println("bench: not everything was measured: " + report + " says what and why");
        System.exit(1);
      }
    } else {
      new Main().run(Path.of(rest.isEmpty() ? "docs/benchmarks.md" : rest.getFirst()));
    }
  }

  private void run(Path file) throws Exception {
    try (Plane plane = new Plane(Map.of("FOREDECK_POOLS", POOL))) {
      report.note(
          String.format(
              Locale.ROOT,
              "Control plane from exec to ready, first start (initdb and host probe included): %.1f"
                  + " s.",
              plane.startSeconds));
      creates(plane.api);
      claims(plane.api);
      calls(plane.api, plane.data);
      throughput(plane.api);
      idle(plane.api);
    }
    gate();
    decisions();
    report.write(file);
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
    report.row(new Samples("cold create -> ready, local driver", ready), "p50 700");
    report.row(new Samples("cold create -> first output byte of `echo`", first), "-");
    report.row(new Samples("cold create -> first output byte of Python", code), "-");
    report.row(new Samples("cold create -> run -> gone, one request", whole), "-");
    report.row(runcRun(), "baseline");
  }

  /// The same from a pool that is full at each request, as it is for who comes now and then.
  private void claims(Api api) throws Exception {
    Samples echo =
        claims(
            api,
            "claim from the pool -> first output byte of `echo`",
            "{" + POOLED + ",\"run\":{\"argv\":[\"echo\",\"hello\"]}}",
            WARM);
    report.row(echo, "10 / 40");
    Samples python =
        claims(
            api,
            "claim from the pool -> first output byte of Python",
            "{" + POOLED + ",\"run\":{\"language\":\"python\",\"code\":\"print(1)\"}}",
            WARM);
    report.row(python, "p50 20");
  }

  static Samples claims(Api api, String name, String body, int n) throws Exception {
    double[] first = new double[n];
    for (int i = -5; i < n; i++) {
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
  static Samples runcRun() throws Exception {
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
              Host.command(
                  "runc",
                  "run",
                  "--bundle",
                  bundle.toString(),
                  "foredeck-bench-" + ProcessHandle.current().pid() + "-" + n[0]++));
    } finally {
      Host.removeTree(bundle);
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
    report.row(plane, String.format(Locale.ROOT, "p50 bare + 4 = %.2f", bare.percentile(50) + 4));
    report.row(bare, "baseline");
    report.row(runcExec(data, sandbox), "baseline");
    Samples stat =
        Samples.measure(
            "`file.stat` through the whole plane (two commits, no process)",
            50,
            CALLS,
            () -> api.get("/v1/sandboxes/" + sandbox + "/files/?stat=1"));
    report.row(stat, "-");
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
    List<String> lines = Host.command("/usr/bin/python3", "-c", program);
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
        () -> Host.command("runc", "--root", run.toString(), "exec", sandbox, "/usr/bin/true"));
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
    report.note(
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
                Host.command(
                    "bash",
                    "-c",
                    "head -c "
                        + OUTPUT_BYTES
                        + " /dev/zero | dd of=/var/tmp/foredeck-bench-out conv=fsync bs=64k"
                        + " status=none; rm /var/tmp/foredeck-bench-out"));
    report.note(
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
    report.note("An idle sandbox, agent included: " + Host.memory(sandbox) + "; budget 50 MB.");
    api.destroy(sandbox);
  }

  private void gate() throws Exception {
    Path folder = Files.createTempDirectory(Path.of("/var/tmp"), "foredeck-bench-");
    Files.setPosixFilePermissions(folder, PosixFilePermissions.fromString("rwxr-xr-x"));
    try {
      List<Samples> both = GateCost.measure(folder);
      report.row(both.get(0), "1 / 5");
      report.row(both.get(1), "baseline");
    } finally {
      Host.removeTree(folder);
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
    report.row(new Samples(batches.name(), each), "p99 0.05");
  }
}
