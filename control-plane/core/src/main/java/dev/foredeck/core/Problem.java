package dev.foredeck.core;

import java.time.Duration;
import java.util.List;

/// Why an operation ended without its result: what the caller may know. `detail` is public; what
/// only operators may know goes to the log instead. Each has a stable `code`.
public sealed interface Problem {

  /// Stable, kebab-case; with the kind it makes the `type` of the HTTP problem.
  String code();

  /// For a person: what was wrong, where, and what would be right.
  String detail();

  /// The input is wrong (400). `code` of the first violation.
  record Invalid(List<Violation> violations) implements Problem {
    public Invalid {
      violations = List.copyOf(violations);
      if (violations.isEmpty()) {
        throw new IllegalArgumentException("no violation");
      }
    }

    public static Invalid of(String pointer, String code, String message) {
      return new Invalid(List.of(new Violation(pointer, code, message)));
    }

    @Override
    public String code() {
      return violations.getFirst().code();
    }

    @Override
    public String detail() {
      return violations.getFirst().message();
    }
  }

  /// One fault of the input.
  ///
  /// @param pointer JSON pointer into the body (`/run/argv/0`), or `query:after`, `path:id`,
  ///   `header:Idempotency-Key`
  /// @param code `unknown-field`, `wrong-type`, `missing-field`, `bad-value`, `too-large`,
  ///   `not-supported`, `not-allowed`
  record Violation(String pointer, String code, String message) {}

  /// No key, or none that is known and not revoked (401).
  record Unauthenticated(String detail) implements Problem {
    @Override
    public String code() {
      return "unauthenticated";
    }
  }

  /// The key's role does not suffice (403).
  record Forbidden(String detail) implements Problem {
    @Override
    public String code() {
      return "forbidden";
    }
  }

  /// A policy denied the call (403). The refusal is in the sandbox's log.
  record Denied(Id sandbox, Id call, List<String> rules, String policy, String detail)
      implements Problem {
    public Denied {
      rules = List.copyOf(rules);
    }

    @Override
    public String code() {
      return "policy-denied";
    }
  }

  /// Nothing of that name for this tenant (404).
  record NotFound(String code, String detail) implements Problem {}

  /// The state does not admit it (409): `idempotency-mismatch`, `sandbox-not-ready`,
  /// `sandbox-gone`, `call-ended`, `wrong-offset`, ...
  record Conflict(String code, String detail) implements Problem {}

  /// Too large (413): names the limit.
  record TooLarge(String code, String detail) implements Problem {}

  /// A limit is reached for now (429).
  record Capacity(String code, String detail, Duration retryAfter) implements Problem {}

  /// Something behind us does not answer (503).
  record Unavailable(String code, String detail, Duration retryAfter) implements Problem {}

  /// A fault of ours (500). `detail` says nothing of the inside.
  record Internal(String detail) implements Problem {
    @Override
    public String code() {
      return "internal";
    }
  }
}
