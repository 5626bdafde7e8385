package dev.foredeck.core.gate;

import dev.foredeck.core.Id;
import dev.foredeck.core.sandbox.Sandbox;
import java.util.LinkedHashMap;
import java.util.Map;

/// The environment of a process: what a sandbox offers, then the sandbox's own, then the call's.
final class Environment {
  private static final String BRIDGE = "127.0.0.1:3128";
  private static final String NO_PROXY = "localhost,127.0.0.1,::1";

  private Environment() {}

  static Map<String, String> of(Sandbox sandbox, Id call, ToolCall.Run run) {
    // The user part claims which call a flow belongs to. A claim, not a credential: the workload
    // can write any.
    String proxy = "http://" + call + ":x@" + BRIDGE;
    Map<String, String> env = new LinkedHashMap<>();
    env.put(
        "PATH",
        "/workspace/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    env.put("HOME", "/workspace");
    env.put("USER", "sandbox");
    env.put("LOGNAME", "sandbox");
    env.put("SHELL", "/bin/bash");
    env.put("LANG", "C.UTF-8");
    env.put("TMPDIR", "/tmp");
    // Both cases: curl reads only the lower one for http, Python and Go either, others the upper
    // one.
    for (String name : new String[] {"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"}) {
      env.put(name, proxy);
    }
    env.put("NO_PROXY", NO_PROXY);
    env.put("no_proxy", NO_PROXY);
    // Node reads the proxy variables only when told to.
    env.put("NODE_USE_ENV_PROXY", "1");
    env.put("FOREDECK_SANDBOX", sandbox.id().value());
    env.put("FOREDECK_CALL", call.value());
    env.putAll(sandbox.env());
    env.putAll(run.env());
    return env;
  }
}
