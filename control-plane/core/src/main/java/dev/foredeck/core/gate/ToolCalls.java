package dev.foredeck.core.gate;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Hashes;
import dev.foredeck.core.Json;
import dev.foredeck.policy.Action;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// The three faces of a tool call: what is stored to run it, what the log shows, and what a policy
/// is asked.
final class ToolCalls {
  private ToolCalls() {}

  /// Everything that running the call needs; kept in the call's row, never shown.
  static ObjectNode stored(ToolCall call) {
    ObjectNode json = Json.object();
    switch (call) {
      case ToolCall.ProcessStart start -> {
        json.set("argv", Json.strings(start.argv()));
        run(json, start);
      }
      case ToolCall.CodeRun code -> {
        json.put("language", code.language()).put("code", code.code());
        run(json, code);
      }
      case ToolCall.ProcessSignal signal ->
          json.put("call", signal.call().value()).put("signal", signal.signal());
      case ToolCall.FileRead read -> json.put("path", read.path());
      case ToolCall.FileWrite write -> {
        json.put("path", write.path());
        if (write.size() >= 0) {
          json.put("size", write.size());
        }
      }
      case ToolCall.FileList list -> json.put("path", list.path()).put("depth", list.depth());
      case ToolCall.FileStat stat -> json.put("path", stat.path());
      case ToolCall.FileMove move -> json.put("path", move.path()).put("target", move.target());
      case ToolCall.FileRemove remove ->
          json.put("path", remove.path()).put("recursive", remove.recursive());
    }
    return json;
  }

  /// What `call.requested` shows: the same, without the values of environment variables, which are
  /// where people put secrets.
  static ObjectNode shown(ToolCall call) {
    ObjectNode json = stored(call);
    if (call instanceof ToolCall.Run run) {
      json.set("env", Json.strings(run.env().keySet().stream().sorted().toList()));
    }
    return json;
  }

  /// Binds an approval or a replay to exactly this call.
  static String digest(String tool, ObjectNode stored) {
    return Hashes.sha256(tool + "\n" + Json.write(stored));
  }

  /// @param arguments as [#stored] wrote them
  static ToolCall.Run runOf(String tool, String arguments) {
    ObjectNode json = Json.readObject(arguments);
    String cwd = json.path("cwd").asText();
    Map<String, String> env = new TreeMap<>();
    for (Map.Entry<String, JsonNode> entry : json.path("env").properties()) {
      env.put(entry.getKey(), entry.getValue().asText());
    }
    Optional<Duration> timeout =
        json.has("timeoutMillis")
            ? Optional.of(Duration.ofMillis(json.path("timeoutMillis").asLong()))
            : Optional.empty();
    boolean stdin = json.path("stdin").asBoolean();
    if (tool.equals("code.run")) {
      return new ToolCall.CodeRun(
          json.path("language").asText(), json.path("code").asText(), cwd, env, timeout, stdin);
    }
    List<String> argv = new ArrayList<>();
    json.path("argv").forEach(word -> argv.add(word.asText()));
    return new ToolCall.ProcessStart(argv, cwd, env, timeout, stdin);
  }

  static Action action(ToolCall call, boolean background) {
    return switch (call) {
      case ToolCall.ProcessStart start ->
          new Action.ProcessStart(
              start.argv(), start.cwd(), names(start.env()), start.stdin(), background);
      case ToolCall.CodeRun code -> new Action.CodeRun(code.language(), code.code(), code.cwd());
      case ToolCall.ProcessSignal signal -> new Action.ProcessSignal(signal.signal());
      case ToolCall.FileRead read -> new Action.FileAccess(read.tool(), read.path(), "", -1);
      case ToolCall.FileWrite write ->
          new Action.FileAccess(write.tool(), write.path(), "", write.size());
      case ToolCall.FileList list -> new Action.FileAccess(list.tool(), list.path(), "", -1);
      case ToolCall.FileStat stat -> new Action.FileAccess(stat.tool(), stat.path(), "", -1);
      case ToolCall.FileMove move ->
          new Action.FileAccess(move.tool(), move.path(), move.target(), -1);
      case ToolCall.FileRemove remove ->
          new Action.FileAccess(remove.tool(), remove.path(), "", -1);
    };
  }

  private static List<String> names(Map<String, String> env) {
    return env.keySet().stream().sorted().toList();
  }

  private static void run(ObjectNode json, ToolCall.Run run) {
    json.put("cwd", run.cwd());
    ObjectNode env = json.putObject("env");
    new TreeMap<>(run.env()).forEach(env::put);
    run.timeout().ifPresent(timeout -> json.put("timeoutMillis", timeout.toMillis()));
    json.put("stdin", run.stdin());
  }
}
