package dev.foredeck.policy;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// Recognises the text of `sh -c` where it is nothing but simple commands of plain words, joined by
/// `&&`, `||`, `|`, `;` or a line end. Everything else is not recognised at all: no expansion, no
/// escape, no redirection, no assignment, no reserved word, no builtin that changes what later
/// words mean. It is not a shell parser and must not become one: what it accepts, it must get
/// right.
///
/// `cd` to a plain path is followed where every command is joined by `&&`, because only then is it
/// sure to have worked before the next command runs.
final class ShellText {
  static final int MAX_LENGTH = 16 * 1024;
  static final int MAX_COMMANDS = 64;
  static final int MAX_WORDS = 512;

  /// Reserved words, and builtins that run text, change how names are found or set variables.
  private static final Set<String> REFUSED_COMMANDS =
      Set.of(
          "if",
          "then",
          "elif",
          "else",
          "fi",
          "for",
          "while",
          "until",
          "do",
          "done",
          "case",
          "esac",
          "in",
          "function",
          "select",
          "time",
          "coproc",
          ".",
          "source",
          "eval",
          "exec",
          "command",
          "builtin",
          "alias",
          "unalias",
          "export",
          "declare",
          "typeset",
          "local",
          "readonly",
          "set",
          "unset",
          "shopt",
          "enable",
          "hash",
          "trap",
          "pushd",
          "popd",
          "dirs",
          "let",
          "read",
          "mapfile",
          "readarray",
          "getopts",
          "shift",
          "return",
          "break",
          "continue",
          "bind",
          "complete",
          "compgen",
          "compopt",
          "fc",
          "history",
          "bg",
          "fg",
          "jobs",
          "wait",
          "disown",
          "suspend",
          "ulimit",
          "umask",
          "logout",
          "caller",
          "times",
          "repeat",
          "foreach",
          "end",
          "noglob",
          "nocorrect",
          "autoload",
          "emulate",
          "integer",
          "float",
          "private");

  /// One command of the text and the folder it runs in.
  record Command(List<String> argv, String cwd) {}

  private final String text;
  private int at;
  private int words;

  private ShellText(String text) {
    this.text = text;
  }

  /// @param cwd where the shell starts; absolute, or relative `cd`s are not recognised
  /// @return the commands, or nothing where the text is not certain
  static Optional<List<Command>> recognise(String text, String cwd) {
    if (text.length() > MAX_LENGTH) {
      return Optional.empty();
    }
    return Optional.ofNullable(new ShellText(text).commands(cwd));
  }

  private @Nullable List<Command> commands(String startingCwd) {
    List<List<String>> simple = new ArrayList<>();
    boolean onlyAnd = true;
    boolean changesFolder = false;
    skip(true);
    while (true) {
      List<String> argv = simpleCommand();
      if (argv == null || simple.size() == MAX_COMMANDS) {
        return null;
      }
      changesFolder |= argv.getFirst().equals("cd");
      simple.add(argv);
      if (at == text.length()) {
        break;
      }
      if (take("&&")) {
        skip(false);
      } else if (take("||") || take("|")) {
        onlyAnd = false;
        skip(false);
      } else if (take(";") || take("\n")) {
        skip(true);
        if (at == text.length()) {
          break;
        }
        onlyAnd = false;
      } else {
        return null;
      }
    }
    if (changesFolder && !onlyAnd) {
      return null;
    }
    return inFolders(simple, startingCwd);
  }

  private static @Nullable List<Command> inFolders(List<List<String>> simple, String startingCwd) {
    String cwd = startingCwd;
    List<Command> commands = new ArrayList<>();
    for (List<String> argv : simple) {
      if (!argv.getFirst().equals("cd")) {
        commands.add(new Command(argv, cwd));
        continue;
      }
      String next = argv.size() == 2 ? changed(cwd, argv.get(1)) : null;
      if (next == null) {
        return null;
      }
      cwd = next;
    }
    return commands;
  }

  /// Where `cd path` leads without looking at the disk, or null where that cannot be said.
  private static @Nullable String changed(String cwd, String path) {
    if (path.isEmpty() || path.startsWith("-")) {
      return null;
    }
    if (!path.startsWith("/") && !cwd.startsWith("/")) {
      return null;
    }
    String joined = path.startsWith("/") ? path : cwd + "/" + path;
    List<String> parts = new ArrayList<>();
    for (String part : joined.split("/", -1)) {
      if (part.equals("..")) {
        // Through a symbolic link, `..` may lead elsewhere.
        return null;
      }
      if (!part.isEmpty() && !part.equals(".")) {
        parts.add(part);
      }
    }
    return "/" + String.join("/", parts);
  }

  /// The words of one command, with the blanks behind it taken; null where they are not certain.
  private @Nullable List<String> simpleCommand() {
    List<String> argv = new ArrayList<>();
    while (at < text.length() && !isSeparator(text.charAt(at))) {
      int start = at;
      String word = word();
      if (word == null || ++words > MAX_WORDS) {
        return null;
      }
      boolean assignment = argv.isEmpty() && text.substring(start, at).indexOf('=') >= 0;
      if (assignment) {
        return null;
      }
      argv.add(word);
      skip(false);
    }
    if (argv.isEmpty() || argv.getFirst().isEmpty() || !isPlainCommand(argv)) {
      return null;
    }
    return argv;
  }

  private static boolean isPlainCommand(List<String> argv) {
    String command = argv.getFirst();
    if (REFUSED_COMMANDS.contains(command)) {
      return false;
    }
    // `printf -v` sets a variable.
    return !(command.equals("printf") && argv.size() > 1 && argv.get(1).startsWith("-v"));
  }

  private @Nullable String word() {
    StringBuilder word = new StringBuilder();
    while (at < text.length()) {
      char c = text.charAt(at);
      if (c == '\'' || c == '"') {
        at++;
        if (!quoted(c, word)) {
          return null;
        }
      } else if (isBare(c)) {
        word.append(c);
        at++;
      } else if (isBlank(c) || isSeparator(c)) {
        return word.toString();
      } else {
        return null;
      }
    }
    return word.toString();
  }

  private boolean quoted(char quote, StringBuilder word) {
    while (at < text.length()) {
      char c = text.charAt(at);
      at++;
      if (c == quote) {
        return true;
      }
      boolean control = (c < ' ' && c != '\n' && c != '\t') || c == 0x7f;
      boolean expands = quote == '"' && (c == '$' || c == '`' || c == '\\' || c == '!');
      if (control || expands) {
        return false;
      }
      word.append(c);
    }
    return false;
  }

  private boolean take(String separator) {
    if (!text.startsWith(separator, at)) {
      return false;
    }
    at += separator.length();
    return true;
  }

  private void skip(boolean lineEnds) {
    while (at < text.length()
        && (isBlank(text.charAt(at)) || (lineEnds && text.charAt(at) == '\n'))) {
      at++;
    }
  }

  private static boolean isBlank(char c) {
    return c == ' ' || c == '\t';
  }

  private static boolean isSeparator(char c) {
    return c == ';' || c == '\n' || c == '&' || c == '|';
  }

  private static boolean isBare(char c) {
    return (c >= 'a' && c <= 'z')
        || (c >= 'A' && c <= 'Z')
        || (c >= '0' && c <= '9')
        || "_-./:,@%+=".indexOf(c) >= 0;
  }
}
