package dev.foredeck.driver.local;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.driver.host.Cgroup.Hierarchy;
import dev.foredeck.driver.host.Deadline;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.OptionalLong;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Both versions, on folders that look like the kernel's: this host has but one of them.
class CgroupsTest {
  private static final Id SANDBOX = Bench.id("groups");

  @TempDir Path root;

  private Path file(String hierarchy, String name, String text) throws IOException {
    Path folder = root.resolve(hierarchy).resolve("foredeck-x").resolve(SANDBOX.value());
    Files.createDirectories(folder);
    return Files.writeString(folder.resolve(name), text);
  }

  private Cgroups v2() {
    return new Cgroups(
        List.of(new Hierarchy(root.resolve("v2"), Set.of("memory", "pids", "cpu"), true)),
        "foredeck-x");
  }

  private Cgroups v1() {
    return new Cgroups(
        List.of(
            new Hierarchy(root.resolve("memory"), Set.of("rw", "memory"), false),
            new Hierarchy(root.resolve("pids"), Set.of("rw", "pids"), false),
            new Hierarchy(root.resolve("cpu"), Set.of("rw", "cpu", "cpuacct"), false),
            new Hierarchy(root.resolve("unified"), Set.of(""), true)),
        "foredeck-x");
  }

  @Test
  void readsLimitsOfVersion2() throws Exception {
    file("v2", "memory.max", "134217728\n");
    file("v2", "pids.max", "64\n");
    file("v2", "cpu.max", "50000 100000\n");
    file("v2", "memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n");

    assertThat(v2().missing()).isEmpty();
    assertThat(v2().limitsSwap()).isTrue();
    assertThat(v2().of(SANDBOX).memoryLimit()).isEqualTo(OptionalLong.of(134_217_728));
    assertThat(v2().of(SANDBOX).pidsLimit()).isEqualTo(OptionalLong.of(64));
    assertThat(v2().of(SANDBOX).cpuLimit()).isEqualTo(OptionalLong.of(500));
    assertThat(v2().of(SANDBOX).outOfMemoryKills()).isEqualTo(2);
    assertThat(v2().exists(SANDBOX)).isTrue();
    assertThat(v2().list()).containsExactly(SANDBOX);
  }

  @Test
  void noLimitIsNoNumber() throws Exception {
    file("v2", "memory.max", "max\n");
    file("v2", "cpu.max", "max 100000\n");
    file("cpu", "cpu.cfs_quota_us", "-1\n");
    file("cpu", "cpu.cfs_period_us", "100000\n");

    assertThat(v2().of(SANDBOX).memoryLimit()).isEmpty();
    assertThat(v2().of(SANDBOX).cpuLimit()).isEmpty();
    assertThat(v1().of(SANDBOX).cpuLimit()).isEmpty();
  }

  @Test
  void readsLimitsOfVersion1() throws Exception {
    file("memory", "memory.limit_in_bytes", "134217728\n");
    file("memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
    file("pids", "pids.max", "64\n");
    file("cpu", "cpu.cfs_quota_us", "150000\n");
    file("cpu", "cpu.cfs_period_us", "100000\n");

    assertThat(v1().missing()).isEmpty();
    assertThat(v1().limitsSwap()).isFalse();
    assertThat(v1().of(SANDBOX).memoryLimit()).isEqualTo(OptionalLong.of(134_217_728));
    assertThat(v1().of(SANDBOX).pidsLimit()).isEqualTo(OptionalLong.of(64));
    assertThat(v1().of(SANDBOX).cpuLimit()).isEqualTo(OptionalLong.of(1500));
    assertThat(v1().of(SANDBOX).outOfMemoryKills()).isEqualTo(1);
  }

  @Test
  void namesControllersThatAreMissing() {
    assertThat(new Cgroups(List.of(), "foredeck-x").missing())
        .containsExactly("memory", "pids", "cpu");
  }

  @Test
  void killsByTheKernelsOwnSwitchWhereThereIsOne() throws Exception {
    Process process = new ProcessBuilder("sleep", "60").start();
    Path kill = file("v2", "cgroup.kill", "");
    file("v2", "cgroup.procs", process.pid() + "\n");
    Thread.ofVirtual()
        .start(() -> {
          try {
            // The kernel would empty it.
            process.waitFor();
            file("v2", "cgroup.procs", "");
          } catch (IOException | InterruptedException e) {
            throw new IllegalStateException(e);
          }
        });

    v2().kill(SANDBOX, Deadline.in(Duration.ofSeconds(20)));

    assertThat(process.isAlive()).isFalse();
    assertThat(kill).hasContent("1");
  }
}
