package dev.foredeck.driver.local;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Resources;
import dev.foredeck.driver.host.UidSlots;
import dev.foredeck.driver.host.WritablePlaces;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// The parts that need neither root nor a runtime.
class LocalPartsTest {
  @TempDir Path folder;

  @Test
  void theSkeletonHasNoSecretAndFollowsTheHost() throws Exception {
    Path host = folder.resolve("host");
    Files.createDirectories(host.resolve("etc/ssl/certs"));
    Files.createDirectories(host.resolve("etc/ssl/private"));
    Files.createDirectories(host.resolve("usr/bin"));
    Files.createSymbolicLink(host.resolve("bin"), Path.of("usr/bin"));
    Files.createDirectories(host.resolve("lib64"));
    Files.writeString(host.resolve("etc/shadow"), "secret");
    Files.writeString(host.resolve("etc/gitconfig"), "token");
    Files.writeString(host.resolve("etc/passwd"), "alice:x:1:1::/home/alice:/bin/sh\n");
    Files.writeString(host.resolve("etc/ssl/private/key"), "secret");
    Files.writeString(host.resolve("etc/ssl/certs/ca.pem"), "ca");
    Path closed = Files.writeString(host.resolve("etc/ssl/certs/closed.pem"), "secret");
    Files.setPosixFilePermissions(closed, Set.of());
    HostTemplate template = new HostTemplate(host, folder.resolve("roots"));

    HostTemplate.Skeleton skeleton = template.ensure();

    assertThat(skeleton.binds()).containsExactly("/usr", "/lib64");
    Path root = skeleton.root();
    assertThat(Files.readSymbolicLink(root.resolve("bin"))).isEqualTo(Path.of("usr/bin"));
    assertThat(root.resolve("etc/ssl/certs/ca.pem")).hasContent("ca");
    assertThat(root.resolve("etc/ssl/certs/closed.pem")).doesNotExist();
    assertThat(root.resolve("etc/ssl/private")).doesNotExist();
    assertThat(root.resolve("etc/shadow")).doesNotExist();
    assertThat(root.resolve("etc/gitconfig")).doesNotExist();
    assertThat(Files.readString(root.resolve("etc/passwd")))
        .contains("sandbox:x:1000")
        .doesNotContain("alice");
    assertThat(template.ensure().root()).isEqualTo(root);

    Files.writeString(host.resolve("etc/ssl/certs/ca.pem"), "another ca");
    assertThat(template.ensure().root()).isNotEqualTo(root);
  }

  @Test
  void theConfigurationPromisesWhatTheDesignSays() throws Exception {
    ObjectNode config =
        OciConfig.of(
            new OciConfig.Spec(
                folder,
                List.of("/usr"),
                folder,
                folder,
                folder,
                List.of("agent"),
                List.of("A=b"),
                UidSlots.FIRST,
                "/foredeck-x/y",
                true,
                1024,
                false,
                new WritablePlaces(Set.of("/workspace")),
                new Resources(250, 128L << 20, 64L << 20, 99)));

    assertThat(config.at("/root/readonly").asBoolean()).isTrue();
    assertThat(config.at("/process/noNewPrivileges").asBoolean()).isTrue();
    assertThat(config.at("/process/user/uid").asInt()).isEqualTo(1000);
    for (JsonNode set : config.at("/process/capabilities")) {
      assertThat(set).isEmpty();
    }
    assertThat(config.at("/linux/namespaces").findValuesAsText("type"))
        .containsExactlyInAnyOrder("pid", "network", "ipc", "uts", "mount", "cgroup", "user");
    assertThat(config.at("/linux/resources/memory/swap").asLong()).isEqualTo(128L << 20);
    assertThat(config.at("/linux/resources/cpu/quota").asLong()).isEqualTo(25_000);
    assertThat(config.at("/linux/resources/pids/limit").asLong()).isEqualTo(99);
    assertThat(config.at("/linux/seccomp/defaultAction").asText()).isEqualTo("SCMP_ACT_ERRNO");
    for (JsonNode mount : config.withArray("mounts")) {
      List<String> options = new java.util.ArrayList<>();
      mount.get("options").forEach(option -> options.add(option.asText()));
      String at = mount.get("destination").asText();
      assertThat(options).as(at).contains("nosuid");
      if (!at.equals("/workspace") && !at.equals("/proc") && !at.startsWith("/dev")) {
        assertThat(options).as(at).contains("ro", "nodev");
      }
    }
  }
}
