package dev.foredeck.policy;

import java.util.List;
import java.util.Map;
import java.util.Optional;

/// Short ways to write policies and actions in tests.
final class Policies {
  static final String HEAD =
      """
      apiVersion: foredeck/v1
      kind: SandboxPolicy
      metadata: {name: test}
      """;

  private Policies() {}

  static Policy compile(String body) {
    return new PolicyCompiler(_ -> Optional.empty()).compile("test.yaml", HEAD + body);
  }

  /// @param sources whole sources by name, for `extends`
  static Policy compile(String body, Map<String, String> sources) {
    return new PolicyCompiler(name -> Optional.ofNullable(sources.get(name)))
        .compile("test.yaml", HEAD + body);
  }

  static String named(String name, String body) {
    return "apiVersion: foredeck/v1\nkind: SandboxPolicy\nmetadata: {name: " + name + "}\n" + body;
  }

  static Action.ProcessStart start(String... argv) {
    return new Action.ProcessStart(List.of(argv), "/workspace", List.of(), false, false);
  }

  static Action.ProcessStart startIn(String cwd, String... argv) {
    return new Action.ProcessStart(List.of(argv), cwd, List.of(), false, false);
  }

  static Action.EgressConnect connect(String host, int port) {
    return new Action.EgressConnect(host, port, "CONNECT", "");
  }

  static Action.FileAccess file(String name, String path) {
    return new Action.FileAccess(name, path, "", -1);
  }
}
