package dev.foredeck.cli;

import java.util.LinkedHashMap;
import java.util.Map;

/// What every command of the CLI answers its caller.
final class ExitCode {
  static final int OK = 0;

  /// It ran, and the answer is no: a part of the demo did not happen, a decision is not as its
  /// table says, a policy has faults.
  static final int NO = 1;

  /// The command line is wrong.
  static final int USAGE = 2;

  /// It could not run: a file that cannot be read, a control plane that does not start or answer.
  static final int CANNOT = 3;

  private ExitCode() {}

  /// For `--help`.
  static Map<String, String> described() {
    Map<String, String> codes = new LinkedHashMap<>();
    codes.put("0", "everything is as it should be");
    codes.put("1", "it ran, and something is not as it should be");
    codes.put("2", "the command line is wrong");
    codes.put("3", "it could not run: a file, or the control plane, could not be had");
    codes.put("130", "interrupted");
    return codes;
  }
}
