package dev.foredeck.policy;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// What an argv is known to run: itself, and the commands of a shell line that [ShellText]
/// recognised.
///
/// `certain` means: argv[0] is not one of the programs that we know to run text or another command
/// from their arguments or input, or the text is recognised and so is every command in it. It does
/// not mean that the program is harmless: any program, script or build file can start others. The
/// list guides agents; the sandbox contains them.
///
/// @param commands those inside a recognised shell line; empty for all else
record CommandLine(boolean certain, List<Command> commands) {

  /// A command of a shell line.
  record Command(List<String> argv, String cwd, boolean certain) {}

  private static final CommandLine CERTAIN = new CommandLine(true, List.of());
  private static final CommandLine OPAQUE = new CommandLine(false, List.of());

  /// Shells whose `-c` text is tried.
  private static final Set<String> RECOGNISED_SHELLS = Set.of("sh", "bash", "dash");

  /// Programs that run a script file named by their first argument, and text or input otherwise.
  private static final Set<String> INTERPRETERS =
      Set.of(
          "sh",
          "bash",
          "dash",
          "ash",
          "zsh",
          "ksh",
          "mksh",
          "rbash",
          "fish",
          "csh",
          "tcsh",
          "python",
          "pypy",
          "ipython",
          "node",
          "nodejs",
          "ts-node",
          "tsx",
          "perl",
          "ruby",
          "irb",
          "php",
          "lua",
          "luajit",
          "tclsh",
          "wish",
          "expect",
          "r",
          "rscript",
          "julia",
          "guile",
          "groovy",
          "jshell",
          "pwsh",
          "osascript");

  /// Programs that always take text to run, or another command.
  private static final Set<String> WRAPPERS =
      Set.of(
          "env",
          "sudo",
          "doas",
          "su",
          "runuser",
          "setpriv",
          "capsh",
          "xargs",
          "parallel",
          "timeout",
          "nohup",
          "nice",
          "ionice",
          "chrt",
          "taskset",
          "setsid",
          "stdbuf",
          "unbuffer",
          "script",
          "time",
          "strace",
          "ltrace",
          "gdb",
          "lldb",
          "valgrind",
          "perf",
          "watch",
          "flock",
          "busybox",
          "toybox",
          "ssh",
          "sshpass",
          "autossh",
          "mosh",
          "awk",
          "gawk",
          "mawk",
          "nawk",
          "sed",
          "gsed",
          "ed",
          "ex",
          "vi",
          "vim",
          "nvim",
          "emacs",
          "chroot",
          "unshare",
          "nsenter",
          "bwrap",
          "proot",
          "fakeroot",
          "firejail",
          "systemd-run",
          "at",
          "batch",
          "crontab",
          "docker",
          "podman",
          "nerdctl",
          "kubectl",
          "lxc",
          "npx",
          "pnpx",
          "bunx",
          "uvx",
          "pipx",
          "deno",
          "bun",
          "elixir",
          "erl",
          "scala",
          "ocaml",
          "ghci",
          "tmux",
          "screen",
          "entr",
          "socat",
          "ncat",
          "run-parts",
          "start-stop-daemon",
          "dbus-run-session",
          "xvfb-run",
          "eval",
          "exec",
          "command",
          "builtin",
          "source",
          ".",
          "direnv",
          "m4",
          "dc",
          "sqlite",
          "psql",
          "mysql");

  /// Options and subcommands with which a program runs a command of the caller.
  private static final Map<String, Set<String>> RUNNING_WORDS =
      Map.ofEntries(
          Map.entry("find", Set.of("-exec", "-execdir", "-ok", "-okdir")),
          Map.entry("fd", Set.of("-x", "--exec", "-X", "--exec-batch")),
          Map.entry(
              "git",
              Set.of(
                  "-c",
                  "--config-env",
                  "--exec-path",
                  "bisect",
                  "filter-branch",
                  "foreach",
                  "difftool",
                  "mergetool",
                  "-x",
                  "--exec",
                  "--upload-pack",
                  "--receive-pack",
                  "config")),
          Map.entry(
              "tar",
              Set.of(
                  "-I",
                  "--use-compress-program",
                  "--to-command",
                  "--checkpoint-action",
                  "--rsh-command",
                  "-F",
                  "--info-script",
                  "--new-volume-script")),
          Map.entry("rsync", Set.of("-e", "--rsh", "--rsync-path")),
          Map.entry("scp", Set.of("-S", "-o")),
          Map.entry("sftp", Set.of("-S", "-o")),
          Map.entry("npm", Set.of("exec", "x", "explore")),
          Map.entry("pnpm", Set.of("exec", "dlx")),
          Map.entry("yarn", Set.of("exec", "dlx")),
          Map.entry("uv", Set.of("run", "tool")),
          Map.entry("poetry", Set.of("run")),
          Map.entry("pipenv", Set.of("run")),
          Map.entry("conda", Set.of("run")),
          Map.entry("bundle", Set.of("exec")),
          Map.entry("make", Set.of("--eval", "-E")),
          Map.entry("gmake", Set.of("--eval", "-E")),
          Map.entry("go", Set.of("-exec", "-toolexec")),
          Map.entry("cargo", Set.of("--config")),
          Map.entry("java", Set.of("-XX:OnError", "-XX:OnOutOfMemoryError")));

  /// Names of variables that change how a shell reads its text.
  private static final Set<String> SHELL_VARIABLES =
      Set.of("BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "PS4", "CDPATH", "IFS", "POSIXLY_CORRECT");

  static CommandLine of(Action.ProcessStart start) {
    List<String> argv = start.argv();
    if (argv.isEmpty() || argv.getFirst().isEmpty()) {
      return OPAQUE;
    }
    if (isShellWithText(argv) && leavesShellAlone(start.env())) {
      return ofShellText(argv.get(1), argv.get(2), start.cwd());
    }
    if (isCertain(argv)) {
      return CERTAIN;
    }
    return OPAQUE;
  }

  private static CommandLine ofShellText(String options, String text, String cwd) {
    Optional<List<ShellText.Command>> recognised = ShellText.recognise(text, cwd);
    if (recognised.isEmpty()) {
      return OPAQUE;
    }
    // A login shell first runs start-up files that the sandbox may have written.
    boolean certain = options.indexOf('l') < 0;
    List<Command> commands = new ArrayList<>();
    for (ShellText.Command command : recognised.get()) {
      boolean commandCertain = isCertain(command.argv());
      certain &= commandCertain;
      commands.add(new Command(command.argv(), command.cwd(), commandCertain));
    }
    return new CommandLine(certain, List.copyOf(commands));
  }

  /// `sh -c text`, with `-e`, `-u` and `-l` in the same word at most.
  private static boolean isShellWithText(List<String> argv) {
    if (argv.size() != 3 || !RECOGNISED_SHELLS.contains(baseName(argv.getFirst()))) {
      return false;
    }
    String options = argv.get(1);
    if (!options.startsWith("-") || options.indexOf('c') < 0) {
      return false;
    }
    for (int i = 1; i < options.length(); i++) {
      if ("ceul".indexOf(options.charAt(i)) < 0) {
        return false;
      }
    }
    // The shell would read these as one more option.
    return !argv.get(2).startsWith("-") && !argv.get(2).startsWith("+");
  }

  private static boolean leavesShellAlone(List<String> env) {
    for (String name : env) {
      if (SHELL_VARIABLES.contains(name) || name.startsWith("BASH_FUNC_")) {
        return false;
      }
    }
    return true;
  }

  private static boolean isCertain(List<String> argv) {
    String program = program(argv.getFirst());
    if (WRAPPERS.contains(program) || isLoader(program)) {
      return false;
    }
    if (INTERPRETERS.contains(program)) {
      return runsFile(argv);
    }
    Set<String> running = RUNNING_WORDS.get(program);
    if (running == null) {
      return true;
    }
    for (int i = 1; i < argv.size(); i++) {
      if (running.contains(optionName(argv.get(i)))) {
        return false;
      }
    }
    return true;
  }

  /// An interpreter is certain where its first word is a script; any option makes it uncertain.
  private static boolean runsFile(List<String> argv) {
    if (argv.size() < 2) {
      return false;
    }
    String first = argv.get(1);
    if (argv.size() == 2 && (first.equals("--version") || first.equals("--help"))) {
      return true;
    }
    return !first.isEmpty()
        && !first.startsWith("-")
        && !first.startsWith("+")
        && !first.startsWith("/dev/")
        && !first.startsWith("/proc/");
  }

  private static boolean isLoader(String program) {
    return program.startsWith("ld-linux")
        || program.startsWith("ld-musl")
        || program.startsWith("ld.so");
  }

  private static String optionName(String word) {
    int equals = word.indexOf('=');
    return word.startsWith("-") && equals > 0 ? word.substring(0, equals) : word;
  }

  static String baseName(String path) {
    return path.substring(path.lastIndexOf('/') + 1);
  }

  /// The base name without a version behind it, in lower case: `python` of `/usr/bin/python3.12`.
  private static String program(String path) {
    String name = baseName(path).toLowerCase(Locale.ROOT);
    if (isLoader(name)) {
      return name;
    }
    int end = name.length();
    while (end > 1 && isVersion(name.charAt(end - 1))) {
      end--;
    }
    return name.substring(0, end);
  }

  private static boolean isVersion(char c) {
    return (c >= '0' && c <= '9') || c == '.' || c == '-';
  }
}
