package dev.foredeck.policy;

import dev.cel.bundle.Cel;
import dev.cel.bundle.CelFactory;
import dev.cel.common.CelAbstractSyntaxTree;
import dev.cel.common.CelIssue;
import dev.cel.common.CelOptions;
import dev.cel.common.CelSourceLocation;
import dev.cel.common.CelValidationException;
import dev.cel.common.CelValidationResult;
import dev.cel.common.types.CelType;
import dev.cel.common.types.ListType;
import dev.cel.common.types.SimpleType;
import dev.cel.compiler.CelCompiler;
import dev.cel.compiler.CelCompilerFactory;
import dev.cel.parser.CelStandardMacro;
import dev.cel.runtime.CelEvaluationException;
import dev.cel.runtime.CelRuntime;
import dev.cel.runtime.CelRuntimeFactory;
import dev.cel.validator.CelValidator;
import dev.cel.validator.CelValidatorFactory;
import dev.cel.validator.validators.RegexLiteralValidator;
import dev.foredeck.policy.ActionName.Family;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// Compiles `when:` conditions: CEL over typed records, one environment for each family of actions,
/// so that a misspelt field is a fault when the policy is loaded and never a condition that is
/// silently false. Bounded in length, nesting, iterations and the size of regular expressions,
/// which are RE2's and take linear time.
final class Conditions {
  static final int MAX_LENGTH = 4_096;
  static final int MAX_ITERATIONS = 10_000;
  private static final int MAX_NESTING = 32;
  private static final int MAX_REGEX_PROGRAM = 5_000;

  private static final CelOptions OPTIONS =
      CelOptions.current()
          .enableHeterogeneousNumericComparisons(true)
          .maxExpressionCodePointSize(MAX_LENGTH)
          .maxParseRecursionDepth(MAX_NESTING)
          .comprehensionMaxIterations(MAX_ITERATIONS)
          .maxRegexProgramSize(MAX_REGEX_PROGRAM)
          .build();

  private static final CelRuntime RUNTIME =
      CelRuntimeFactory.plannerRuntimeBuilder().setOptions(OPTIONS).build();

  /// Those that a condition is likely to want, for suggestions.
  private static final Set<String> FUNCTIONS =
      Set.of(
          "all",
          "contains",
          "endsWith",
          "exists",
          "exists_one",
          "filter",
          "has",
          "int",
          "map",
          "matches",
          "size",
          "startsWith",
          "string");

  private static final Map<Family, Map<String, CelType>> VARIABLES = variables();

  private static final Map<Family, CelCompiler> COMPILERS = compilers();

  private Conditions() {}

  /// A compiled condition of one family.
  interface Condition {
    /// @throws CelEvaluationException where it has no answer, as with an index behind a list's end
    boolean holds(Facts facts) throws CelEvaluationException;
  }

  private static Map<Family, Map<String, CelType>> variables() {
    Map<Family, Map<String, CelType>> all = new EnumMap<>(Family.class);
    CelType words = ListType.create(SimpleType.STRING);
    Map<String, CelType> process = new LinkedHashMap<>();
    process.put("process.argv", words);
    process.put("process.cwd", SimpleType.STRING);
    process.put("process.env", words);
    process.put("process.stdin", SimpleType.BOOL);
    process.put("process.background", SimpleType.BOOL);
    process.put("process.certain", SimpleType.BOOL);
    all.put(Family.PROCESS, process);
    all.put(Family.SIGNAL, Map.of("signal.name", SimpleType.STRING));
    Map<String, CelType> code = new LinkedHashMap<>();
    code.put("code.language", SimpleType.STRING);
    code.put("code.text", SimpleType.STRING);
    code.put("code.cwd", SimpleType.STRING);
    // Code runs in a process too: one rule can hold both families to a folder.
    code.put("process.cwd", SimpleType.STRING);
    all.put(Family.CODE, code);
    Map<String, CelType> file = new LinkedHashMap<>();
    file.put("file.path", SimpleType.STRING);
    file.put("file.target", SimpleType.STRING);
    file.put("file.size", SimpleType.INT);
    all.put(Family.FILE, file);
    Map<String, CelType> egress = new LinkedHashMap<>();
    egress.put("egress.host", SimpleType.STRING);
    egress.put("egress.port", SimpleType.INT);
    egress.put("egress.method", SimpleType.STRING);
    egress.put("egress.path", SimpleType.STRING);
    all.put(Family.EGRESS, egress);
    return all;
  }

  private static Map<Family, CelCompiler> compilers() {
    Map<Family, CelCompiler> all = new EnumMap<>(Family.class);
    for (Map.Entry<Family, Map<String, CelType>> family : VARIABLES.entrySet()) {
      var builder =
          CelCompilerFactory.standardCelCompilerBuilder()
              .setOptions(OPTIONS)
              .setStandardMacros(CelStandardMacro.STANDARD_MACROS);
      for (Map.Entry<String, CelType> variable : family.getValue().entrySet()) {
        builder.addVar(variable.getKey(), variable.getValue());
      }
      all.put(family.getKey(), builder.build());
    }
    return all;
  }

  /// The names that conditions of a family may use.
  static Set<String> fields(Family family) {
    return variablesOf(family).keySet();
  }

  private static Map<String, CelType> variablesOf(Family family) {
    return VARIABLES.getOrDefault(family, Map.of());
  }

  /// Compiles, or adds faults at the places in the YAML that they belong to.
  static Optional<Condition> compile(Family family, YamlNode.Scalar when, Faults faults) {
    CelCompiler compiler = COMPILERS.get(family);
    if (compiler == null) {
      throw new IllegalStateException("no environment for " + family);
    }
    CelValidationResult checked = compiler.compile(when.text());
    if (checked.hasError()) {
      report(family, when, checked.getErrors(), faults);
      return Optional.empty();
    }
    try {
      CelAbstractSyntaxTree tree = checked.getAst();
      if (!tree.getResultType().equals(SimpleType.BOOL)) {
        faults.add(
            when,
            "cel",
            "a condition must be true or false; this one is "
                + tree.getResultType().name()
                + ", for "
                + described(family));
        return Optional.empty();
      }
      CelValidationResult validated = validator(compiler).validate(tree);
      if (validated.hasError()) {
        report(family, when, validated.getErrors(), faults);
        return Optional.empty();
      }
      CelRuntime.Program program = RUNTIME.createProgram(tree);
      return Optional.of(facts -> isTrue(program.eval(facts)));
    } catch (CelValidationException | CelEvaluationException broken) {
      faults.add(when, "cel", firstLine(String.valueOf(broken.getMessage())));
      return Optional.empty();
    }
  }

  private static boolean isTrue(Object answer) throws CelEvaluationException {
    if (answer instanceof Boolean value) {
      return value;
    }
    throw new CelEvaluationException("the condition is neither true nor false");
  }

  private static CelValidator validator(CelCompiler compiler) {
    Cel cel = CelFactory.combine(compiler, RUNTIME);
    return CelValidatorFactory.standardCelValidatorBuilder(cel, cel)
        .addAstValidators(RegexLiteralValidator.INSTANCE)
        .build();
  }

  private static void report(
      Family family, YamlNode.Scalar when, List<CelIssue> issues, Faults faults) {
    for (CelIssue issue : issues) {
      CelSourceLocation location = issue.getSourceLocation();
      int line = Math.max(1, location.getLine());
      int column = Math.max(0, location.getColumn());
      String message = firstLine(issue.getMessage());
      if (message.startsWith("undeclared reference to")) {
        message = undeclared(family, when.text(), line, column, message);
      }
      int reportedLine = when.line();
      int reportedColumn = when.column();
      if (when.indicator() >= 0) {
        reportedColumn += when.indicator() + column;
      } else if (when.literal()) {
        reportedLine += line;
        reportedColumn = 1;
      }
      faults.add(reportedLine, reportedColumn, "cel", message);
    }
  }

  /// CEL names the first part only; the author needs the whole name and what was meant.
  private static String undeclared(
      Family family, String text, int line, int column, String message) {
    String[] lines = text.split("\n", -1);
    if (line > lines.length) {
      return message;
    }
    if (column < lines[line - 1].length() && lines[line - 1].charAt(column) == '(') {
      String function = quoted(message);
      return "unknown function '" + function + "'" + Nearest.suggestion(function, FUNCTIONS);
    }
    String written = nameAround(lines[line - 1], column);
    if (written.isEmpty()) {
      return message;
    }
    StringBuilder out = new StringBuilder();
    out.append("unknown name '").append(written).append("' in a condition of ");
    out.append(described(family));
    Optional<String> near = nearest(written, fields(family));
    if (near.isPresent()) {
      return out.append("; did you mean '").append(near.get()).append("'?").toString();
    }
    return out.append("; it has ").append(String.join(", ", fields(family))).toString();
  }

  /// The name in `undeclared reference to 'name' (in container '')`.
  private static String quoted(String message) {
    int start = message.indexOf('\'') + 1;
    int end = message.indexOf('\'', start);
    return end < 0 ? "" : message.substring(start, end);
  }

  private static Optional<String> nearest(String written, Set<String> fields) {
    Optional<String> near = Nearest.find(written, fields);
    if (near.isPresent()) {
      return near;
    }
    // `process.argv.exists` is the field and a method.
    int last = written.lastIndexOf('.');
    return last < 0 ? Optional.empty() : nearest(written.substring(0, last), fields);
  }

  private static String nameAround(String line, int column) {
    int start = Math.min(column, line.length());
    while (start > 0 && isNamePart(line.charAt(start - 1))) {
      start--;
    }
    int end = start;
    while (end < line.length() && isNamePart(line.charAt(end))) {
      end++;
    }
    boolean call = end < line.length() && line.charAt(end) == '(';
    String name = line.substring(start, end);
    int last = name.lastIndexOf('.');
    return call && last > 0 ? name.substring(0, last) : name;
  }

  private static boolean isNamePart(char c) {
    return c == '_' || c == '.' || (c < 0x80 && Character.isLetterOrDigit(c));
  }

  private static String described(Family family) {
    return switch (family) {
      case PROCESS -> "process.start";
      case SIGNAL -> "process.signal";
      case CODE -> "code.run";
      case FILE -> "file." + "*";
      case EGRESS -> "egress.connect";
    };
  }

  private static String firstLine(String text) {
    int end = text.indexOf('\n');
    String line = end < 0 ? text : text.substring(0, end);
    return line.length() > 500 ? String.format(Locale.ROOT, "%s...", line.substring(0, 500)) : line;
  }
}
