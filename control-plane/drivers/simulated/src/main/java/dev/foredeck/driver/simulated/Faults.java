package dev.foredeck.driver.simulated;

import dev.foredeck.core.Id;

/// What goes wrong in a simulated backend, and how slow it is. Asked once for each occasion, by any
/// thread.
public interface Faults {
  /// A backend that works.
  Faults NONE = new Faults() {};

  /// Occasions that take time.
  enum Occasion {
    LAUNCH,
    DESTROY,
    CONNECT,
    START
  }

  /// What may happen to a launch or a destroy.
  enum VerbFault {
    NONE,
    /// Nothing was done, and the driver says so.
    FAILS,
    /// Half of it was done: a sandbox that remains, without an agent.
    FAILS_HALFWAY,
    /// All was done, but the answer is lost.
    ANSWER_LOST,
    /// Nothing was done until the deadline.
    HANGS,
    /// The backend has no room.
    FULL
  }

  /// How the agent behaves on one connection.
  enum AgentFault {
    NONE,
    /// Greets with a protocol from the future: must never be handed out.
    UNKNOWN_VERSION,
    /// Greets with another token: must never be handed out.
    WRONG_TOKEN,
    /// Never greets.
    NEVER_GREETS,
    /// Takes the request and never answers.
    NEVER_ANSWERS,
    /// Answers with a frame beyond the limit.
    OVERSIZED_MESSAGE,
    /// Sends output at an offset that leaves a gap.
    OFFSET_TOO_HIGH,
    /// Sends output again that was sent before.
    OFFSET_TOO_LOW,
    /// Closes the connection after the first answer.
    DROPS_CONNECTION,
    /// The agent's process dies after the first answer.
    DIES
  }

  default long latencyMillis(Occasion occasion, Id sandbox) {
    return 0;
  }

  default VerbFault onLaunch(Id sandbox) {
    return VerbFault.NONE;
  }

  default VerbFault onDestroy(Id sandbox) {
    return VerbFault.NONE;
  }

  default AgentFault onConnect(Id sandbox) {
    return AgentFault.NONE;
  }
}
