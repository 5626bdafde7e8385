package dev.foredeck.driver.host;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.InputStream;

/// The system calls that programs in a sandbox may make, as the runtime specification has them.
public final class SystemCalls {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final int ENOSYS = 38;

  private SystemCalls() {}

  public static JsonNode filter() throws IOException {
    try (InputStream in = SystemCalls.class.getResourceAsStream("seccomp.json")) {
      if (in == null) {
        throw new IOException("seccomp.json is missing from this build");
      }
      JsonNode profile = JSON.readTree(in);
      String architecture =
          switch (System.getProperty("os.arch", "")) {
            case "amd64", "x86_64" -> "SCMP_ARCH_X86_64";
            case "aarch64" -> "SCMP_ARCH_AARCH64";
            case String other -> throw new IOException("no system call filter for " + other);
          };
      // One architecture only: the 32-bit calls of a 64-bit kernel are a second, less tested door.
      ((ObjectNode) profile).putArray("architectures").add(architecture);
      return profile;
    }
  }

  /// The same calls where gVisor's kernel filters them. It answers EPERM whatever number is asked
  /// for, where programs must see that a call does not exist; a trace without a tracer is how to
  /// say that.
  public static JsonNode filterOfItsOwnKernel() throws IOException {
    JsonNode profile = filter();
    for (JsonNode rule : profile.get("syscalls")) {
      if (rule.path("errnoRet").asInt() == ENOSYS) {
        ((ObjectNode) rule).put("action", "SCMP_ACT_TRACE").remove("errnoRet");
      }
    }
    return profile;
  }
}
