package dev.foredeck.protocol;

/// Every bound of the wire between control plane and agent, in one place. Both sides enforce each:
/// the control plane because the agent is inside the blast radius, the agent because a clear error
/// beats a dead sandbox.
public final class Limits {
  /// Oldest and newest protocol version that this build speaks.
  public static final int PROTOCOL_MIN = 1;

  public static final int PROTOCOL_MAX = 1;

  /// Bytes of one frame after its length field.
  public static final int FRAME_BYTES = 2 * 1024 * 1024;

  /// Bytes of payload in one `Output`, `Stdin` or `Chunk` message.
  public static final int CHUNK_BYTES = 64 * 1024;

  /// Words in an argv and bytes of one word and of all of them.
  public static final int ARGV_COUNT = 1024;

  public static final int ARG_BYTES = 128 * 1024 - 1;
  public static final int ARGV_BYTES = 512 * 1024;

  /// Entries of an environment and bytes of all of them.
  public static final int ENV_COUNT = 512;

  public static final int ENV_BYTES = 256 * 1024;

  /// Bytes of a script sent along with a process.
  public static final int SCRIPT_BYTES = 1024 * 1024;

  /// Bytes of a path.
  public static final int PATH_BYTES = 4096;

  /// Entries in one directory listing.
  public static final int LIST_ENTRIES = 10_000;

  /// Levels of one directory listing.
  public static final int LIST_DEPTH = 64;

  /// Bytes of a short string: ids, tokens, versions, messages.
  public static final int TEXT_BYTES = 8 * 1024;

  /// Bytes that the agent keeps per channel of a process until they are acknowledged.
  public static final int SPOOL_BYTES = 1024 * 1024;

  /// Processes that the agent remembers (running or ended and not yet released).
  public static final int PROCESSES = 64;

  /// Released call ids that the agent remembers, so that none is ever run twice.
  public static final int RELEASED_IDS = 16 * 1024;

  private Limits() {}
}
