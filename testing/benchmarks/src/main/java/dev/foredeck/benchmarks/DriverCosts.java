package dev.foredeck.benchmarks;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;

/// `./foredeck bench drivers [REPORT]`: what a sandbox costs on each driver, beside what its
/// backend costs without us, in one run. A backend that is not there, or fails, is named in the
/// report with its reason instead of a number.
final class DriverCosts {
  private static final int WARM = 30;
  private static final int COLD = 10;
  private static final int BASELINE = 10;
  private static final int AT_ONCE = 30;

  private static final int SIMULATED_AT_ONCE = 300;

  /// For those that are claimed and those that the pool makes anew.
  private static final Map<String, String> PLACES =
      Map.of("FOREDECK_SANDBOXES", "700", "FOREDECK_SANDBOXES_PER_TENANT", "700");

  private static final String SIZE = "\"memory\":\"320Mi\",\"disk\":\"64Mi\"";
  private static final String SIZE_OF_POOL = "+memory=320Mi+disk=64Mi";

  /// What a pod may use, which is what it asks of its node: as much as leaves room for so many on
  /// one of two cores.
  private static final String CPU_OF_FEW = "0.3";

  private static final String CPU_OF_MANY = "0.05";

  private boolean complete = true;
  private final Report report =
      new Report("What sandboxes cost on each driver", "./foredeck bench drivers");

  /// A driver as it is configured.
  ///
  /// @param group the part of a control group's path that is a sandbox's
  private record Backend(
      String name,
      String template,
      Map<String, String> settings,
      Group group,
      boolean cluster,
      String budget) {
    /// Finds it.
    private interface Group {
      String of(String sandbox) throws IOException, InterruptedException;
    }

    Map<String, String> with(String pool) {
      Map<String, String> all = new HashMap<>(settings);
      all.put("FOREDECK_POOLS", pool);
      return all;
    }
  }

  /// @return whether every part was measured
  boolean run(Path file) throws Exception {
    String docker = System.getenv("DOCKER_HOST");
    String kubeconfig = System.getenv("KUBECONFIG");
    String runsc = System.getenv("FOREDECK_RUNSC");
    measure(local("local (runc)", Map.of()));
    baseline("`runc run`", Main::runcRun);
    if (runsc == null) {
      absent("local (gVisor)", "FOREDECK_RUNSC is not set");
    } else {
      measure(local("local (gVisor)", Map.of("FOREDECK_RUNTIME", "runsc")));
    }
    if (docker == null) {
      absent("docker", "DOCKER_HOST is not set");
    } else {
      measure(docker("docker (runc)", Map.of()));
      measure(docker("docker (gVisor)", Map.of("FOREDECK_DOCKER_RUNTIME", "runsc")));
      baseline("`docker run`", DriverCosts::dockerRun);
    }
    String templates = System.getenv("FOREDECK_KUBERNETES_TEMPLATES");
    if (kubeconfig == null || templates == null) {
      absent("kubernetes", "KUBECONFIG or FOREDECK_KUBERNETES_TEMPLATES is not set");
    } else {
      measure(pods("kubernetes (runc)", templates));
      baseline("`kubectl run`", () -> kubectlRun(kubeconfig));
      if (Files.exists(Path.of(templates + ".gvisor"))) {
        measure(pods("kubernetes (gVisor)", templates + ".gvisor"));
      } else {
        absent("kubernetes (gVisor)", "there is no " + templates + ".gvisor");
      }
    }
    simulated();
    report.write(file);
    return complete;
  }

  private static Backend local(String name, Map<String, String> runtime) {
    return new Backend(name, "host", with(runtime, "local"), sandbox -> sandbox, false, "10 / 40");
  }

  private static Backend docker(String name, Map<String, String> runtime) {
    return new Backend(
        name,
        "base",
        with(runtime, "docker"),
        sandbox ->
            Host.command("docker", "inspect", "--format", "{{.Id}}", "foredeck-" + sandbox)
                .getFirst(),
        false,
        "p50 25");
  }

  private static Backend pods(String name, String templates) {
    return new Backend(
        name,
        "base",
        with(
            Map.of(
                "FOREDECK_KUBERNETES_INSTALL",
                "temporary",
                "FOREDECK_KUBERNETES_TEMPLATES",
                templates),
            "kubernetes"),
        sandbox ->
            Host.command(
                    "kubectl",
                    "get",
                    "pods",
                    "--all-namespaces",
                    "--field-selector",
                    "metadata.name=" + sandbox,
                    "--output",
                    "jsonpath={.items[0].metadata.uid}")
                .getFirst(),
        true,
        "p50 50");
  }

  private static Map<String, String> with(Map<String, String> settings, String driver) {
    Map<String, String> all = new HashMap<>(settings);
    all.put("FOREDECK_DRIVER", driver);
    return all;
  }

  private void absent(String backend, String why) {
    complete = false;
    report.note(backend + ": **not measured**: " + why + ".");
  }

  private void measure(Backend backend) throws InterruptedException {
    part(backend.name + ", one by one", () -> oneByOne(backend));
    part(backend.name + ", " + AT_ONCE + " at once", () -> atOnce(backend, AT_ONCE));
  }

  /// One that fails is named, and those after it are measured all the same.
  private void part(String name, Samples.Timed part) throws InterruptedException {
    try {
      part.run();
    } catch (InterruptedException e) {
      throw e;
    } catch (Exception e) {
      absent(name, String.valueOf(e.getMessage()));
    }
  }

  private interface Baseline {
    Samples measure() throws Exception;
  }

  private void baseline(String name, Baseline baseline) throws InterruptedException {
    part("baseline " + name, () -> report.row(baseline.measure(), "baseline"));
  }

  private void oneByOne(Backend backend) throws Exception {
    String cpu = backend.cluster ? "+cpu=" + CPU_OF_FEW : "";
    String pool = backend.template + cpu + SIZE_OF_POOL + ":3";
    String run = ",\"run\":{\"argv\":[\"echo\",\"hello\"]}}";
    try (Plane plane = new Plane(backend.with(pool))) {
      report.row(
          Main.claims(
              plane.api,
              backend.name + ": claim from the pool -> first output byte of `echo`",
              body(backend, CPU_OF_FEW, SIZE) + run,
              WARM),
          backend.budget);
      long before = writes().size();
      double[] cold = new double[COLD];
      List<String> made = new ArrayList<>();
      for (int i = 0; i < COLD; i++) {
        Api.Times times =
            plane.api.stream(
                "/v1/sandboxes",
                body(backend, CPU_OF_FEW, "\"memory\":\"256Mi\",\"disk\":\"64Mi\"") + run);
        cold[i] = times.millis("output");
        made.add(times.sandbox());
      }
      report.row(
          new Samples(backend.name + ": cold create -> first output byte of `echo`", cold), "-");
      if (backend.cluster) {
        writesOf(before, made);
      }
      String idle = plane.api.readySandbox(body(backend, CPU_OF_FEW, SIZE) + "}");
      Thread.sleep(3000);
      Host.Memory memory = Host.memory(backend.group.of(idle));
      if (memory.processes() == 0) {
        throw new IOException("no process is in the control group of the idle sandbox");
      }
      report.note(
          backend.name
              + ": an idle sandbox has "
              + memory
              + ", "
              + memory.processes()
              + " processes of the host; budget 50 MB.");
      plane.api.destroy(idle);
    }
  }

  private static String body(Backend backend, String cpu, String size) {
    return "{\"template\":\""
        + backend.template
        + "\",\"resources\":{"
        + (backend.cluster ? "\"cpu\":\"" + cpu + "\"," : "")
        + size
        + "}";
  }

  /// So many requests at the same moment, each for a sandbox of a pool that has as many.
  private void atOnce(Backend backend, int n) throws Exception {
    String cpu = backend.cluster ? "+cpu=" + CPU_OF_MANY : "";
    String pool = backend.template + cpu + SIZE_OF_POOL + ":" + n;
    try (Plane plane = new Plane(backend.with(pool));
        ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      plane.api.awaitFullPool();
      CyclicBarrier together = new CyclicBarrier(n);
      List<Callable<JsonNode>> requests = new ArrayList<>();
      double[] millis = new double[n];
      for (int i = 0; i < n; i++) {
        int one = i;
        requests.add(() -> {
          together.await();
          long began = System.nanoTime();
          JsonNode sandbox =
              plane.api.post("/v1/sandboxes", body(backend, CPU_OF_MANY, SIZE) + "}");
          millis[one] = (System.nanoTime() - began) / 1e6;
          return sandbox;
        });
      }
      List<String> made = new ArrayList<>();
      for (Future<JsonNode> sandbox : threads.invokeAll(requests)) {
        made.add(sandbox.get().path("id").asText());
      }
      report.row(
          new Samples(
              backend.name + ": " + n + " claims at once, each request -> its answer", millis),
          "-");
      for (String sandbox : made) {
        plane.api.destroy(sandbox);
      }
    }
  }

  private void simulated() throws InterruptedException {
    Backend backend =
        new Backend("simulated", "host", with(PLACES, "simulated"), sandbox -> sandbox, false, "-");
    part(backend.name + ", at once", () -> atOnce(backend, SIMULATED_AT_ONCE));
  }

  // Baselines.

  private static Samples dockerRun() throws Exception {
    String image = Arrays.asList(System.getenv("FOREDECK_DOCKER_TEMPLATES").split("=", 2)).get(1);
    return Samples.measure(
        "baseline: `docker run --rm --network none IMAGE echo hello`",
        2,
        BASELINE,
        () -> Host.command("docker", "run", "--rm", "--network", "none", image, "echo", "hello"));
  }

  private Samples kubectlRun(String kubeconfig) throws Exception {
    String image = System.getenv("FOREDECK_TEST_BASE_IMAGE");
    if (image == null) {
      throw new IOException(
          "FOREDECK_TEST_BASE_IMAGE is not set, for kubectl run on " + kubeconfig);
    }
    long before = writes().size();
    List<String> made = new ArrayList<>();
    Samples samples =
        Samples.measure(
            "baseline: `kubectl run --rm --attach IMAGE -- echo hello`, bare pod",
            0,
            BASELINE,
            () -> {
              String name = "foredeck-bench-" + ProcessHandle.current().pid() + "-" + made.size();
              made.add(name);
              List<String> _ =
                  Host.command(
                      "kubectl",
                      "run",
                      name,
                      "--image",
                      image,
                      "--restart",
                      "Never",
                      "--rm",
                      "--attach",
                      "--quiet",
                      "--image-pull-policy",
                      "IfNotPresent",
                      "--command",
                      "--",
                      "echo",
                      "hello");
            });
    writesOf(before, made);
    return samples;
  }

  // Writes to the API server, as its audit log has them: of our own test cluster alone.

  private static List<String> writes() throws IOException {
    String kubeconfig = System.getenv("KUBECONFIG");
    Path log =
        kubeconfig == null
            ? Path.of("none")
            : Path.of(kubeconfig).resolveSibling("logs").resolve("audit.log");
    return Files.exists(log) ? Files.readAllLines(log) : List.of();
  }

  private void writesOf(long before, List<String> pods) throws Exception {
    Thread.sleep(3000); // The last ones are of the kubelet, after the pod is gone for its client.
    int all = 0;
    int ours = 0;
    int events = 0;
    List<String> lines = writes();
    if (lines.isEmpty()) {
      report.note("Writes to the API: **not measured**: this cluster's audit log cannot be read.");
      return;
    }
    try (Stream<String> since = lines.stream().skip(before)) {
      for (String line : since.toList()) {
        JsonNode entry = Api.MAPPER.readTree(line);
        JsonNode object = entry.path("objectRef");
        String name = object.path("name").asText();
        if (object.path("resource").asText().equals("events")) {
          events += pods.stream().anyMatch(line::contains) ? 1 : 0;
        } else if (object.path("resource").asText().equals("pods") && pods.contains(name)) {
          all++;
          ours += entry.path("userAgent").asText().matches("(?i).*(fabric8|kubectl).*") ? 1 : 0;
        }
      }
    }
    report.note(
        String.format(
            Locale.ROOT,
            "Writes to the API for each of %d pods %s…: %.1f, of which the client's %.1f; beside"
                + " %.1f of events.",
            pods.size(),
            pods.getFirst().replaceAll("[0-9].*", ""),
            (double) all / pods.size(),
            (double) ours / pods.size(),
            (double) events / pods.size()));
  }
}
