package dev.foredeck.protocol;

import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/// What makes a message valid, apart from how it is written. Both the encoder and the decoder ask
/// here, so that neither side can send what the other refuses.
final class MessageRules {
  /// Highest signal number of Linux (`SIGRTMAX`).
  private static final int MAX_SIGNAL = 64;

  private static final int MAX_PERMISSIONS = 0777;
  private static final int MAX_MODE = 07777;
  private static final Pattern ID = Pattern.compile("[a-z][a-z0-9]{15,40}");
  private static final Pattern ADDRESS = Pattern.compile("[0-9.]{7,15}|[0-9a-f:.]{2,45}");
  private static final Pattern CREDENTIAL = Pattern.compile("[0-9a-f]{64}");
  private static final Pattern SUFFIX = Pattern.compile("\\.[a-z]{1,8}");

  private MessageRules() {}

  /// @return what is wrong, or null for a valid message
  static @Nullable String fault(Message message) {
    return switch (message) {
      case Message.Greeting m ->
          first(
              m.protocolMin() < 1 || m.protocolMax() < m.protocolMin() || m.protocolMax() > 0xffff
                  ? "the protocol range is impossible"
                  : null,
              m.bootId().isEmpty() ? "bootId is empty" : null,
              text("bootId", m.bootId()),
              text("token", m.token()),
              text("agentVersion", m.agentVersion()));
      case Message.Hello m ->
          first(
              m.token().isEmpty() ? "token is empty" : null,
              text("token", m.token()),
              m.gateway().map(MessageRules::gateway).orElse(null));
      case Message.StartProcess m -> process(m);
      case Message.Attach m ->
          first(
              id(m.callId()),
              offset("stdoutOffset", m.stdoutOffset()),
              offset("stderrOffset", m.stderrOffset()));
      case Message.Signal m ->
          first(
              id(m.callId()),
              m.signal() < 1 || m.signal() > MAX_SIGNAL ? "signal is not 1 to 64" : null);
      case Message.Terminate m -> first(id(m.callId()), offset("graceMillis", m.graceMillis()));
      case Message.WriteStdin m ->
          first(id(m.callId()), piece("stdin", m.offset(), m.bytes().length));
      case Message.Release m -> id(m.callId());
      case Message.Ping _, Message.Done _ -> null;
      case Message.ReadFile m ->
          first(
              path("path", m.path()),
              offset("offset", m.offset()),
              offset("maxBytes", m.maxBytes()));
      case Message.WriteFile m ->
          first(
              path("path", m.path()),
              m.mode() < 0 || m.mode() > MAX_PERMISSIONS ? "mode is not 0 to 0777" : null);
      case Message.ListFiles m ->
          first(
              path("path", m.path()),
              m.depth() < 1 || m.depth() > Limits.LIST_DEPTH
                  ? "depth is not 1 to " + Limits.LIST_DEPTH
                  : null);
      case Message.StatFile m -> path("path", m.path());
      case Message.RemoveFile m -> path("path", m.path());
      case Message.MoveFile m -> first(path("from", m.from()), path("to", m.to()));
      case Message.Started m -> m.pid() < 1 ? "pid is not positive" : null;
      case Message.Output m ->
          first(
              m.bytes().length == 0 ? "output is empty" : null,
              piece("output", m.offset(), m.bytes().length));
      case Message.Ack m -> offset("offset", m.offset());
      case Message.StdinAck m -> offset("offset", m.offset());
      case Message.Ended m ->
          first(
              m.exitCode() < 0 || m.exitCode() > 255 ? "exitCode is not 0 to 255" : null,
              m.signal() < 0 || m.signal() > MAX_SIGNAL ? "signal is not 0 to 64" : null,
              offset("stdoutBytes", m.stdoutBytes()),
              offset("stderrBytes", m.stderrBytes()),
              offset("cpuMicros", m.cpuMicros()),
              offset("peakMemoryBytes", m.peakMemoryBytes()),
              offset("wallMillis", m.wallMillis()));
      case Message.FileInfo m -> file(m);
      case Message.FileList m -> files(m.entries());
      case Message.Chunk m -> piece("chunk", 0, m.bytes().length);
      case Message.ChunksEnd m -> offset("totalBytes", m.totalBytes());
      case Message.Failure m -> text("message", m.message());
    };
  }

  private static @Nullable String gateway(Message.Gateway gateway) {
    return first(
        ID.matcher(gateway.sandbox()).matches() ? null : "sandbox does not match " + ID,
        ADDRESS.matcher(gateway.address()).matches() ? null : "address is no IP literal",
        gateway.port() < 1 || gateway.port() > 0xffff ? "port is not 1 to 65535" : null,
        CREDENTIAL.matcher(gateway.credential()).matches()
            ? null
            : "credential does not match " + CREDENTIAL);
  }

  private static @Nullable String process(Message.StartProcess m) {
    return first(
        id(m.callId()),
        argv(m.argv()),
        environment(m.env()),
        path("cwd", m.cwd()),
        m.cwd().startsWith("/") ? null : "cwd is not absolute",
        m.script().map(MessageRules::script).orElse(null),
        m.timeoutMillis() < 1 ? "timeoutMillis is not positive" : null,
        offset("graceMillis", m.graceMillis()),
        offset("stdoutOffset", m.stdoutOffset()),
        offset("stderrOffset", m.stderrOffset()));
  }

  private static @Nullable String script(Message.Script script) {
    if (!SUFFIX.matcher(script.suffix()).matches()) {
      return "the script's suffix does not match " + SUFFIX;
    }
    return script.bytes().length > Limits.SCRIPT_BYTES
        ? "the script is longer than " + Limits.SCRIPT_BYTES + " bytes"
        : null;
  }

  private static @Nullable String argv(List<String> argv) {
    if (argv.isEmpty() || argv.size() > Limits.ARGV_COUNT) {
      return "argv has not 1 to " + Limits.ARGV_COUNT + " words";
    }
    long total = 0;
    for (String word : argv) {
      int bytes = utf8Length(word);
      if (bytes > Limits.ARG_BYTES) {
        return "a word of argv is longer than " + Limits.ARG_BYTES + " bytes";
      }
      if (hasNul(word)) {
        return "a word of argv has a NUL";
      }
      total += bytes + 1;
    }
    return total > Limits.ARGV_BYTES ? "argv is longer than " + Limits.ARGV_BYTES + " bytes" : null;
  }

  private static @Nullable String environment(Map<String, String> env) {
    if (env.size() > Limits.ENV_COUNT) {
      return "env has more than " + Limits.ENV_COUNT + " entries";
    }
    long total = 0;
    for (Map.Entry<String, String> entry : env.entrySet()) {
      String name = entry.getKey();
      if (name.isEmpty() || name.indexOf('=') >= 0 || hasNul(name)) {
        return "a name in env is empty or has a = or a NUL";
      }
      if (hasNul(entry.getValue())) {
        return "a value in env has a NUL";
      }
      // The kernel counts `name=value` as one string, with the limit of a word of argv.
      int bytes = utf8Length(name) + 1 + utf8Length(entry.getValue());
      if (bytes > Limits.ARG_BYTES) {
        return "an entry of env is longer than " + Limits.ARG_BYTES + " bytes";
      }
      total += bytes + 1;
    }
    return total > Limits.ENV_BYTES ? "env is longer than " + Limits.ENV_BYTES + " bytes" : null;
  }

  private static @Nullable String file(Message.FileInfo file) {
    return first(
        path("path", file.path()),
        offset("sizeBytes", file.sizeBytes()),
        file.mode() < 0 || file.mode() > MAX_MODE ? "mode is not 0 to 07777" : null);
  }

  private static @Nullable String files(List<Message.FileInfo> entries) {
    if (entries.size() > Limits.LIST_ENTRIES) {
      return "the list has more than " + Limits.LIST_ENTRIES + " entries";
    }
    for (Message.FileInfo entry : entries) {
      String fault = file(entry);
      if (fault != null) {
        return fault;
      }
    }
    return null;
  }

  private static @Nullable String id(String id) {
    return ID.matcher(id).matches() ? null : "callId does not match " + ID;
  }

  private static @Nullable String path(String name, String path) {
    if (utf8Length(path) > Limits.PATH_BYTES) {
      return name + " is longer than " + Limits.PATH_BYTES + " bytes";
    }
    return hasNul(path) ? name + " has a NUL" : null;
  }

  private static @Nullable String text(String name, String text) {
    return utf8Length(text) > Limits.TEXT_BYTES
        ? name + " is longer than " + Limits.TEXT_BYTES + " bytes"
        : null;
  }

  private static @Nullable String offset(String name, long value) {
    return value < 0 ? name + " is negative" : null;
  }

  private static @Nullable String piece(String name, long offset, int length) {
    if (length > Limits.CHUNK_BYTES) {
      return name + " is longer than " + Limits.CHUNK_BYTES + " bytes";
    }
    if (offset < 0) {
      return "offset is negative";
    }
    return offset > Long.MAX_VALUE - length ? "offset is too large" : null;
  }

  private static int utf8Length(String text) {
    return text.getBytes(StandardCharsets.UTF_8).length;
  }

  private static boolean hasNul(String text) {
    return text.indexOf('\0') >= 0;
  }

  private static @Nullable String first(@Nullable String... faults) {
    for (String fault : faults) {
      if (fault != null) {
        return fault;
      }
    }
    return null;
  }
}
