package dev.foredeck.server;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Problem;
import dev.foredeck.core.Problem.Violation;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.Role;
import dev.foredeck.core.gate.ToolCall;
import dev.foredeck.core.sandbox.InlineFile;
import dev.foredeck.core.sandbox.ProvisionRequest;
import dev.foredeck.policy.HostPattern;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Pattern;

/// Bodies of `/v1` to what core's doors take: valid and bounded, or refused with everything that is
/// wrong. Thread-safe.
final class Decode {
  private static final int ARGV = dev.foredeck.protocol.Limits.ARGV_COUNT;
  private static final int ARG_BYTES = dev.foredeck.protocol.Limits.ARG_BYTES;
  private static final int ARGV_BYTES = dev.foredeck.protocol.Limits.ARGV_BYTES;
  private static final int CODE_BYTES = dev.foredeck.protocol.Limits.SCRIPT_BYTES;

  /// Half of what the agent takes: the sandbox's own and the call's come together there.
  private static final int ENV_BYTES = dev.foredeck.protocol.Limits.ENV_BYTES / 2;

  private static final int HOSTS = 256;
  private static final int NAME_BYTES = 128;
  private static final int LIST_DEPTH = 16;
  private static final Pattern NAME = Pattern.compile("[a-z0-9][a-z0-9._-]{0,63}");
  private static final Pattern POLICY =
      Pattern.compile("[a-z0-9][a-z0-9._-]{0,63}(@[A-Za-z0-9._-]{1,64})?");
  private static final Pattern ENV_NAME = Pattern.compile("[A-Za-z_][A-Za-z0-9_]{0,127}");
  private static final Pattern LABEL = Pattern.compile("[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?");
  private static final Pattern SIGNAL = Pattern.compile("(SIG)?[A-Z][A-Z0-9]{1,9}");
  private static final List<String> LANGUAGES = List.of("python", "bash", "javascript");
  private static final Set<String> TOOLS =
      new TreeSet<>(
          List.of(
              "process.start",
              "process.signal",
              "code.run",
              "file.read",
              "file.write",
              "file.list",
              "file.stat",
              "file.move",
              "file.remove",
              "file.watch",
              "web.fetch",
              "port.expose",
              "mcp.call"));

  private final Limits limits;

  Decode(Limits limits) {
    this.limits = limits;
  }

  /// Bytes of output or of a file that are inside of a JSON answer at most.
  int readBytes() {
    return limits.resultTailBytes();
  }

  int inlineOutputBytes() {
    return limits.inlineOutputBytes();
  }

  // ---- POST /v1/sandboxes

  ProvisionRequest provision(ObjectNode body) {
    List<Violation> violations = new ArrayList<>();
    Fields fields = new Fields(body, "", violations);
    Optional<String> template = name(fields, "template", NAME);
    OptionalInt cpu = OptionalInt.empty();
    OptionalLong memory = OptionalLong.empty();
    OptionalLong disk = OptionalLong.empty();
    Optional<Fields> resources = fields.object("resources");
    if (resources.isPresent()) {
      cpu = cpu(resources.get());
      memory = size(resources.get(), "memory");
      disk = size(resources.get(), "disk");
      resources.get().done();
    }
    Optional<Duration> ttl = duration(fields, "ttl", limits.maxTtl());
    Optional<String> policy = name(fields, "policy", POLICY);
    Map<String, String> env = env(fields);
    fields.notSupported("secrets", "put no secret into `env` instead; a policy will name them");
    Map<String, String> labels = labels(fields).orElse(Map.of());
    List<InlineFile> files = files(fields);
    Optional<List<String>> network = network(fields);
    Optional<ToolCall.Run> run = fields.object("run").flatMap(this::run);
    boolean runs = fields.has("run");
    List<String> outputs = outputs(fields, runs);
    Optional<Boolean> destroyOnExit = destroy(fields);
    fields.done();
    check(violations);
    return new ProvisionRequest(
        template,
        cpu,
        memory,
        disk,
        ttl,
        policy,
        env,
        labels,
        files,
        network,
        run,
        outputs,
        destroyOnExit);
  }

  private Optional<ToolCall.Run> run(Fields run) {
    boolean code = run.has("code") || run.has("language");
    if (code && run.has("argv")) {
      run.refuse(
          run.at("argv"), "bad-value", "give either `language` and `code` or `argv`, not both");
    }
    if (!code && !run.has("argv")) {
      run.missing("argv", "`run` needs `language` and `code`, or `argv`");
    }
    ToolCall.Run call = code ? code(run) : process(run);
    run.done();
    return Optional.of(call);
  }

  private ToolCall.CodeRun code(Fields fields) {
    Optional<String> language = fields.text("language", NAME_BYTES);
    if (!fields.has("language")) {
      fields.missing(
          "language", "`language` is needed beside `code`: " + String.join(", ", LANGUAGES));
    }
    if (language.isPresent() && !LANGUAGES.contains(language.get())) {
      fields.refuse(
          fields.at("language"),
          "bad-value",
          Fields.unknown("language", language.get(), new TreeSet<>(LANGUAGES)));
    }
    Optional<String> code = fields.text("code", CODE_BYTES);
    if (!fields.has("code")) {
      fields.missing("code", "`code` is needed beside `language`");
    }
    return new ToolCall.CodeRun(
        language.orElse(""),
        code.orElse(""),
        cwd(fields),
        env(fields),
        timeout(fields),
        stdin(fields));
  }

  private ToolCall.ProcessStart process(Fields fields) {
    List<String> argv = fields.texts("argv", ARGV, ARG_BYTES).orElse(List.of());
    if (fields.has("argv") && argv.isEmpty()) {
      fields.refuse(fields.at("argv"), "bad-value", "`argv` needs at least the program");
    } else if (!argv.isEmpty() && argv.getFirst().isEmpty()) {
      fields.refuse(fields.at("argv") + "/0", "bad-value", "the program's name is empty");
    }
    if (argv.stream().mapToLong(Fields::utf8Length).sum() > ARGV_BYTES) {
      fields.refuse(
          fields.at("argv"), "too-large", "`argv` may have " + ARGV_BYTES + " bytes together");
    }
    return new ToolCall.ProcessStart(
        argv, cwd(fields), env(fields), timeout(fields), stdin(fields));
  }

  private static boolean stdin(Fields fields) {
    fields.notSupported("pty", "a terminal comes with a later version");
    fields.notSupported("context", "a stateful interpreter comes with a later version");
    return fields.flag("stdin").orElse(false);
  }

  private Optional<Duration> timeout(Fields fields) {
    return duration(fields, "timeout", limits.maxTtl());
  }

  private static String cwd(Fields fields) {
    Optional<String> text = fields.text("cwd", WorkspacePath.PATH_BYTES);
    if (text.isEmpty()) {
      return WorkspacePath.WORKSPACE;
    }
    WorkspacePath.Parsed parsed = WorkspacePath.directory(text.get());
    if (!parsed.good()) {
      fields.refuse(fields.at("cwd"), "bad-value", "this path is refused: " + parsed.fault());
    }
    return parsed.path();
  }

  private Map<String, String> env(Fields fields) {
    Map<String, String> env = fields.map("env", limits.envEntries(), ARG_BYTES);
    long bytes = 0;
    for (Map.Entry<String, String> entry : env.entrySet()) {
      bytes += Fields.utf8Length(entry.getKey()) + Fields.utf8Length(entry.getValue()) + 2;
      if (!ENV_NAME.matcher(entry.getKey()).matches()) {
        fields.refuse(
            fields.at("env"),
            "bad-value",
            "names of environment variables are letters, digits and `_`, not starting with a"
                + " digit");
      }
    }
    if (bytes > ENV_BYTES) {
      fields.refuse(fields.at("env"), "too-large", "`env` may have " + ENV_BYTES + " bytes");
    }
    return env;
  }

  private Optional<Map<String, String>> labels(Fields fields) {
    if (!fields.has("labels")) {
      return Optional.empty();
    }
    Map<String, String> labels = new LinkedHashMap<>();
    fields
        .map("labels", limits.labels(), limits.labelBytes())
        .forEach((key, value) -> {
          if (key.length() > limits.labelBytes() || !LABEL.matcher(key).matches()) {
            fields.refuse(
                fields.at("labels"),
                "bad-value",
                "a label's key is letters, digits, `.`, `_`, `/` and `-`, begins and ends with a"
                    + " letter or digit, and has at most "
                    + limits.labelBytes()
                    + " bytes");
          } else if (value.chars().anyMatch(Character::isISOControl)) {
            fields.refuse(
                fields.at("labels") + "/" + key.replace("/", "~1"),
                "bad-value",
                "a label's value must not have control characters");
          } else {
            labels.put(key, value);
          }
        });
    return Optional.of(labels);
  }

  private List<InlineFile> files(Fields fields) {
    List<InlineFile> files = new ArrayList<>();
    Set<String> paths = new HashSet<>();
    long total = 0;
    for (Fields file : fields.objects("files", limits.inlineFiles())) {
      Optional<String> path = path(file, "path", false);
      Optional<byte[]> bytes = bytes(file, "content", limits.inlineFileBytes());
      file.done();
      if (path.isPresent() && !paths.add(path.get())) {
        file.refuse(file.at("path"), "bad-value", "this path is there twice");
      }
      if (bytes.isPresent()) {
        total += bytes.get().length;
        files.add(new InlineFile(path.orElse(""), bytes.get()));
      }
    }
    if (total > limits.inlineFileBytes()) {
      fields.refuse(
          fields.at("files"),
          "too-large",
          "files in the request may have "
              + limits.inlineFileBytes()
              + " bytes together; upload larger ones with PUT /v1/sandboxes/{id}/files/{path}");
    }
    return files;
  }

  /// Bytes given as text or as `base64`.
  private static Optional<byte[]> bytes(Fields fields, String textName, int maxBytes) {
    boolean both = fields.has(textName) && fields.has("base64");
    boolean none = !fields.has(textName) && !fields.has("base64");
    if (both || none) {
      String message =
          "give either `" + textName + "` (text) or `base64`" + (both ? ", not both" : "");
      if (both) {
        fields.refuse(fields.at("base64"), "bad-value", message);
      } else {
        fields.missing(textName, message);
      }
      return Optional.empty();
    }
    Optional<String> text = fields.content(textName, maxBytes);
    if (text.isPresent()) {
      return Optional.of(text.get().getBytes(StandardCharsets.UTF_8));
    }
    Optional<String> base64 = fields.text("base64", maxBytes / 3 * 4 + 4);
    if (base64.isEmpty()) {
      return Optional.empty();
    }
    try {
      return Optional.of(Base64.getDecoder().decode(base64.get()));
    } catch (IllegalArgumentException _) {
      fields.refuse(fields.at("base64"), "bad-value", "this is not base64 (RFC 4648, padded)");
      return Optional.empty();
    }
  }

  /// Whether the policy admits a host, core says.
  private static Optional<List<String>> network(Fields fields) {
    Optional<Fields> network = fields.object("network");
    if (network.isEmpty()) {
      return Optional.empty();
    }
    Optional<List<String>> allow = network.get().texts("allow", HOSTS, 300);
    if (!network.get().has("allow")) {
      network.get().missing("allow", "`network` needs `allow`; an empty list allows no host");
    }
    int index = 0;
    for (String host : allow.orElse(List.of())) {
      try {
        HostPattern.parse(host);
      } catch (IllegalArgumentException e) {
        fields.refuse(
            network.get().at("allow") + "/" + index, "bad-value", String.valueOf(e.getMessage()));
      }
      index++;
    }
    network.get().done();
    return allow;
  }

  private List<String> outputs(Fields fields, boolean runs) {
    List<String> outputs = new ArrayList<>();
    if (fields.has("outputs") && !runs) {
      fields.refuse(
          fields.at("outputs"), "bad-value", "`outputs` come from a run: `run` is missing");
    }
    int index = 0;
    for (String text :
        fields.texts("outputs", limits.outputs(), WorkspacePath.PATH_BYTES).orElse(List.of())) {
      WorkspacePath.Parsed parsed = WorkspacePath.parse(text, false);
      String at = fields.at("outputs") + "/" + index++;
      if (!parsed.good()) {
        fields.refuse(at, "bad-value", "this path is refused: " + parsed.fault());
      } else if (outputs.contains(parsed.path())) {
        fields.refuse(at, "bad-value", "this path is there twice");
      } else {
        outputs.add(parsed.path());
      }
    }
    return outputs;
  }

  private static Optional<Boolean> destroy(Fields fields) {
    Optional<String> destroy = fields.text("destroy", NAME_BYTES);
    if (destroy.isEmpty()) {
      return Optional.empty();
    }
    return switch (destroy.get()) {
      case "on-exit" -> Optional.of(true);
      case "on-ttl" -> Optional.of(false);
      default -> {
        fields.refuse(fields.at("destroy"), "bad-value", "it is `on-exit` or `on-ttl`");
        yield Optional.empty();
      }
    };
  }

  // ---- PATCH /v1/sandboxes/{id}

  record Patch(Optional<Duration> ttl, Optional<Map<String, String>> labels) {}

  Patch patch(ObjectNode body) {
    List<Violation> violations = new ArrayList<>();
    Fields fields = new Fields(body, "", violations);
    Optional<Duration> ttl = duration(fields, "ttl", limits.maxTtl());
    Optional<Map<String, String>> labels = labels(fields);
    fields.done();
    if (violations.isEmpty() && ttl.isEmpty() && labels.isEmpty()) {
      fields.missing("ttl", "give `ttl` or `labels`: nothing else can be changed");
    }
    check(violations);
    return new Patch(ttl, labels);
  }

  // ---- POST /v1/sandboxes/{id}/calls

  /// @param content what `file.write` writes
  record Asked(ToolCall call, boolean background, List<String> outputs, Optional<byte[]> content) {}

  Asked call(ObjectNode body) {
    List<Violation> violations = new ArrayList<>();
    Fields fields = new Fields(body, "", violations);
    Optional<String> tool = fields.text("tool", NAME_BYTES);
    if (!fields.has("tool")) {
      fields.missing("tool", "`tool` is needed: " + String.join(", ", TOOLS));
    }
    check(violations);
    Optional<Asked> asked = asked(tool.orElse(""), fields);
    if (asked.isPresent()) {
      // Of a tool that does not exist no field can be unknown.
      fields.done();
    }
    check(violations);
    return asked.orElseThrow(
        () -> new IllegalStateException("a tool without a call must leave a violation"));
  }

  private Optional<Asked> asked(String tool, Fields fields) {
    return switch (tool) {
      case "process.start" -> {
        if (!fields.has("argv")) {
          fields.missing("argv", "`argv` is needed: the program and its arguments");
        }
        yield Optional.of(running(process(fields), fields));
      }
      case "code.run" -> Optional.of(running(code(fields), fields));
      case "process.signal" -> done(new ToolCall.ProcessSignal(callId(fields), signalName(fields)));
      case "file.read" -> done(new ToolCall.FileRead(needPath(fields, "path", false)));
      case "file.write" -> {
        String path = needPath(fields, "path", false);
        byte[] content = bytes(fields, "content", limits.inlineFileBytes()).orElse(new byte[0]);
        yield Optional.of(
            new Asked(
                new ToolCall.FileWrite(path, content.length),
                false,
                List.of(),
                Optional.of(content)));
      }
      case "file.list" ->
          done(
              new ToolCall.FileList(
                  path(fields, "path", true).orElse(""),
                  (int) fields.integer("depth", 1, LIST_DEPTH).orElse(1)));
      case "file.stat" -> done(new ToolCall.FileStat(path(fields, "path", true).orElse("")));
      case "file.move" ->
          done(
              new ToolCall.FileMove(
                  needPath(fields, "path", false), needPath(fields, "target", false)));
      case "file.remove" ->
          done(
              new ToolCall.FileRemove(
                  needPath(fields, "path", false), fields.flag("recursive").orElse(false)));
      case "file.watch", "web.fetch", "port.expose", "mcp.call" -> {
        fields.refuse("/tool", "not-supported", "`" + tool + "` is not supported yet");
        yield Optional.empty();
      }
      default -> {
        fields.refuse("/tool", "bad-value", Fields.unknown("tool", tool, TOOLS));
        yield Optional.empty();
      }
    };
  }

  private Asked running(ToolCall.Run run, Fields fields) {
    boolean background = fields.flag("background").orElse(false);
    return new Asked(run, background, outputs(fields, true), Optional.empty());
  }

  private static Optional<Asked> done(ToolCall call) {
    return Optional.of(new Asked(call, false, List.of(), Optional.empty()));
  }

  /// A placeholder where it is wrong: the violation is noted and the call never made.
  private static Id callId(Fields fields) {
    Optional<String> text = fields.text("call", 64);
    if (!fields.has("call")) {
      fields.missing("call", "`call` is needed: the id of the call to signal");
    } else if (text.isPresent() && Id.isValid(text.get())) {
      return new Id(text.get());
    } else if (text.isPresent()) {
      fields.refuse(fields.at("call"), "bad-value", "this is not an id");
    }
    return new Id("invalid00000000000");
  }

  // ---- POST /v1/calls/{id}/signal, stdin; /v1/keys

  String signal(ObjectNode body) {
    List<Violation> violations = new ArrayList<>();
    Fields fields = new Fields(body, "", violations);
    String signal = signalName(fields);
    fields.done();
    check(violations);
    return signal;
  }

  private static String signalName(Fields fields) {
    Optional<String> text = fields.text("signal", NAME_BYTES);
    if (!fields.has("signal")) {
      fields.missing("signal", "`signal` is needed, as `INT`");
    }
    if (text.isPresent() && !SIGNAL.matcher(text.get().toUpperCase(Locale.ROOT)).matches()) {
      fields.refuse(fields.at("signal"), "bad-value", "a signal is given by its name, as `INT`");
    }
    String name = text.orElse("").toUpperCase(Locale.ROOT);
    return name.startsWith("SIG") ? name.substring(3) : name;
  }

  record Stdin(Optional<Long> offset, byte[] bytes, boolean end) {}

  Stdin stdin(ObjectNode body) {
    List<Violation> violations = new ArrayList<>();
    Fields fields = new Fields(body, "", violations);
    OptionalLong offset = fields.integer("offset", 0, Long.MAX_VALUE / 2);
    boolean end = fields.flag("end").orElse(false);
    boolean empty = end && !fields.has("text") && !fields.has("base64");
    Optional<byte[]> bytes = empty ? Optional.empty() : bytes(fields, "text", limits.bodyBytes());
    fields.done();
    check(violations);
    return new Stdin(
        offset.isPresent() ? Optional.of(offset.getAsLong()) : Optional.empty(),
        bytes.orElse(new byte[0]),
        end);
  }

  record NewKey(String name, Role role) {}

  NewKey key(ObjectNode body) {
    List<Violation> violations = new ArrayList<>();
    Fields fields = new Fields(body, "", violations);
    Optional<String> name = fields.text("name", NAME_BYTES);
    if (!fields.has("name")) {
      fields.missing("name", "`name` is needed: it tells keys apart in logs and lists");
    }
    if (name.isPresent()
        && (name.get().isBlank() || name.get().chars().anyMatch(Character::isISOControl))) {
      fields.refuse(fields.at("name"), "bad-value", "a name is visible text");
    }
    Optional<String> role = fields.text("role", NAME_BYTES);
    Role decoded =
        switch (role.orElse("developer")) {
          case "operator" -> Role.OPERATOR;
          case "developer" -> Role.DEVELOPER;
          default -> {
            fields.refuse(fields.at("role"), "bad-value", "a role is `operator` or `developer`");
            yield Role.DEVELOPER;
          }
        };
    fields.done();
    check(violations);
    return new NewKey(name.orElse(""), decoded);
  }

  /// `POST` bodies that say nothing: `{}` or none.
  void empty(ObjectNode body) {
    List<Violation> violations = new ArrayList<>();
    new Fields(body, "", violations).done();
    check(violations);
  }

  // ---- parts

  private static Optional<String> name(Fields fields, String name, Pattern pattern) {
    Optional<String> text = fields.text(name, NAME_BYTES);
    if (text.isPresent() && !pattern.matcher(text.get()).matches()) {
      fields.refuse(
          fields.at(name),
          "bad-value",
          "a " + name + " is named with lower-case letters, digits, `.`, `_` and `-`");
    }
    return text;
  }

  private static String needPath(Fields fields, String name, boolean root) {
    Optional<String> path = path(fields, name, root);
    return path.orElse("");
  }

  private static Optional<String> path(Fields fields, String name, boolean root) {
    Optional<String> text = fields.text(name, WorkspacePath.PATH_BYTES);
    if (text.isEmpty()) {
      if (!fields.has(name) && !root) {
        fields.missing(name, "`" + name + "` is needed: a path relative to the workspace");
      }
      return Optional.empty();
    }
    WorkspacePath.Parsed parsed = WorkspacePath.parse(text.get(), root);
    if (!parsed.good()) {
      fields.refuse(fields.at(name), "bad-value", "this path is refused: " + parsed.fault());
      return Optional.empty();
    }
    return Optional.of(parsed.path());
  }

  private static OptionalInt cpu(Fields resources) {
    Optional<String> text = resources.quantity("cpu");
    if (text.isEmpty()) {
      return OptionalInt.empty();
    }
    OptionalInt millis = Quantity.cpuMillis(text.get());
    if (millis.isEmpty() || millis.getAsInt() < 1) {
      resources.refuse(
          resources.at("cpu"),
          "bad-value",
          "CPU is cores (`\"1\"`, `0.5`) or thousandths (`\"500m\"`)");
      return OptionalInt.empty();
    }
    return millis;
  }

  private static OptionalLong size(Fields resources, String name) {
    Optional<String> text = resources.quantity(name);
    if (text.isEmpty()) {
      return OptionalLong.empty();
    }
    OptionalLong bytes = Quantity.size(text.get());
    if (bytes.isEmpty() || bytes.getAsLong() < 1) {
      resources.refuse(
          resources.at(name), "bad-value", "a size is written `512Mi`, `1Gi` or in bytes");
      return OptionalLong.empty();
    }
    return bytes;
  }

  private static Optional<Duration> duration(Fields fields, String name, Duration max) {
    Optional<String> text = fields.text(name, 32);
    if (text.isEmpty()) {
      return Optional.empty();
    }
    Optional<Duration> duration = Quantity.duration(text.get());
    if (duration.isEmpty() || duration.get().isZero()) {
      fields.refuse(
          fields.at(name), "bad-value", "a duration is written `60s`, `15m`, `1h30m` or `500ms`");
      return Optional.empty();
    }
    if (duration.get().compareTo(max) > 0) {
      fields.refuse(
          fields.at(name), "too-large", "`" + name + "` may be " + Quantity.writeDuration(max));
      return Optional.empty();
    }
    return duration;
  }

  private static void check(List<Violation> violations) {
    if (!violations.isEmpty()) {
      throw new ProblemException(new Problem.Invalid(violations));
    }
  }
}
