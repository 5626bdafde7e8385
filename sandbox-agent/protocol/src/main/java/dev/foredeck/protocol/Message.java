package dev.foredeck.protocol;

import java.util.List;
import java.util.Map;
import java.util.Optional;

/// One message between the control plane and an agent. A connection carries, in this order:
///
/// 1. control plane, where it dialled: [Hello]; agent: [Greeting], then silence until the control
///    plane takes the connection;
/// 2. control plane: exactly one [Request];
/// 3. what belongs to that request (see each record), until either side closes the connection.
///
/// An agent that dials keeps one greeted connection spare: when a request arrives on it, it dials
/// the next. Byte arrays in messages are owned by the receiver and never changed after
/// construction.
public sealed interface Message {

  /// The first message where the control plane dialled, before the agent's greeting: proves which
  /// sandbox's control plane dials (the transport has proved whose), and tells what a sandbox that
  /// is reached over a network must not find in its own description.
  ///
  /// @param token the sandbox's token, of which the agent holds the SHA-256
  /// @param gateway the way to the web; empty: none
  record Hello(String token, Optional<Gateway> gateway) implements Message {}

  /// How the agent's bridge reaches the egress gateway over the network.
  ///
  /// @param sandbox the sandbox's id
  /// @param address an IP literal: a sandbox resolves no names
  /// @param credential 64 hexadecimal digits; secret
  record Gateway(String sandbox, String address, int port, String credential) {
    /// Without the credential: this goes to logs.
    @Override
    public String toString() {
      return "Gateway[" + sandbox + ", " + address + ":" + port + "]";
    }
  }

  /// The agent's first message on every connection.
  ///
  /// @param protocolMin oldest protocol version the agent speaks
  /// @param protocolMax newest protocol version the agent speaks
  /// @param bootId names this life of the agent; another boot id means that all of its processes
  ///   are gone
  /// @param token where the agent dialled: the sandbox's token, which proves that the agent and not
  ///   the workload did; empty where the control plane dialled
  /// @param agentVersion free text for logs
  record Greeting(
      int protocolMin, int protocolMax, String bootId, String token, String agentVersion)
      implements Message {}

  /// What the control plane may ask as the first message on a greeted connection.
  sealed interface Request extends Message {}

  /// Starts a process, or attaches to it when the agent knows `callId` already: idempotent by
  /// `callId`. The agent answers [Started], then any number of [Output], then [Ended]; or one
  /// [Failure]. The control plane sends [Ack], and at the end [Release], which is answered with
  /// [Done]. Stdin goes over connections of its own ([WriteStdin]). Of two connections that are
  /// attached to one call the newer one stays and the older one is closed.
  ///
  /// @param callId the call, a valid id
  /// @param argv at least one word; `argv[0]` is looked up in `PATH` of `env`
  /// @param env the whole environment
  /// @param cwd absolute path in the sandbox
  /// @param script when present, is written to a private file whose path is appended to `argv`
  /// @param stdin whether stdin is a pipe (true) or empty (false)
  /// @param timeoutMillis after this the agent sends TERM, and KILL after `graceMillis`, to the
  ///   whole session
  /// @param graceMillis between TERM and KILL
  /// @param stdoutOffset bytes of stdout that the control plane has committed: output is sent from
  ///   here
  /// @param stderrOffset the same for stderr
  record StartProcess(
      String callId,
      List<String> argv,
      Map<String, String> env,
      String cwd,
      Optional<Script> script,
      boolean stdin,
      long timeoutMillis,
      long graceMillis,
      long stdoutOffset,
      long stderrOffset)
      implements Request {
    public StartProcess {
      argv = List.copyOf(argv);
      // Insertion order is kept: golden messages and tests want one encoding per value.
      env = java.util.Collections.unmodifiableMap(new java.util.LinkedHashMap<>(env));
    }
  }

  /// A program text for an interpreter.
  ///
  /// @param suffix of the file's name, as `.py`; matches `\.[a-z]{1,8}`
  record Script(String suffix, byte[] bytes) {}

  /// Attaches to a call that was started before, and never starts it: answers as [StartProcess], or
  /// [Failure] with [FailureCode#UNKNOWN_CALL].
  record Attach(String callId, long stdoutOffset, long stderrOffset) implements Request {}

  /// Sends a signal to the whole session of a call's process. Answered with [Done] or [Failure].
  record Signal(String callId, int signal) implements Request {}

  /// TERM, then KILL after the grace, to the whole session. The call's [Ended] says so. Answered
  /// with [Done] at once. `cause` is what [Ended] reports.
  record Terminate(String callId, long graceMillis, EndCause cause) implements Request {}

  /// Appends to a call's stdin. Answered with [StdinAck] carrying the bytes accepted in all, or
  /// [Failure] ([FailureCode#WRONG_OFFSET] names the right offset in its message;
  /// [FailureCode#STDIN_CLOSED]). The answer waits while the pipe is full. Bytes before the
  /// accepted offset are skipped: repeating is safe.
  record WriteStdin(String callId, long offset, byte[] bytes, boolean end) implements Request {}

  /// The call's result is committed: the agent may forget its spool, and remembers only that the id
  /// was used. Answered with [Done], also for an unknown id.
  record Release(String callId) implements Request {}

  /// Is the agent there? Answered with [Done].
  record Ping() implements Request {}

  /// Reads a file of the workspace. Answered with [FileInfo], then [Chunk]s, then [ChunksEnd]; or
  /// [Failure].
  ///
  /// @param path relative to the workspace, resolved without leaving it
  record ReadFile(String path, long offset, long maxBytes) implements Request {}

  /// Writes a file of the workspace, as a whole or not at all (temporary file, then rename). After
  /// this the control plane sends [Chunk]s and [ChunksEnd]; the agent answers [FileInfo] or
  /// [Failure]. Without [ChunksEnd] nothing changes.
  record WriteFile(String path, int mode) implements Request {}

  /// Lists a directory of the workspace: [FileList] or [Failure].
  ///
  /// @param depth 1 lists the directory's own entries
  record ListFiles(String path, int depth) implements Request {}

  /// Answered with [FileInfo] or [Failure]. Does not follow a link in the last component.
  record StatFile(String path) implements Request {}

  /// Answered with [Done] or [Failure]. A directory that has entries needs `recursive`.
  record RemoveFile(String path, boolean recursive) implements Request {}

  /// Renames within the workspace; replaces a file at `to`. Answered with [Done] or [Failure].
  record MoveFile(String from, String to) implements Request {}

  /// The process runs (or ran: an attach to an ended process is answered the same way).
  ///
  /// @param pid in the sandbox
  record Started(long pid) implements Message {}

  /// Output bytes of a process, each byte once and in order per connection.
  ///
  /// @param offset of the first byte
  record Output(Channel channel, long offset, byte[] bytes) implements Message {}

  /// From the control plane: bytes of this channel up to `offset` are committed, the agent may drop
  /// them.
  record Ack(Channel channel, long offset) implements Message {}

  /// Bytes of stdin accepted so far.
  record StdinAck(long offset) implements Message {}

  /// The process has ended and all of its output was sent on this connection (from the requested
  /// offsets).
  ///
  /// @param cause why it ended
  /// @param exitCode exit status where `signal` is 0
  /// @param signal the signal that ended it, or 0
  /// @param stdoutBytes length of the whole channel
  /// @param stderrBytes length of the whole channel
  /// @param cpuMicros user + system time of the process and the children it waited for
  /// @param peakMemoryBytes largest resident set among them
  /// @param wallMillis from start to exit
  record Ended(
      EndCause cause,
      int exitCode,
      int signal,
      long stdoutBytes,
      long stderrBytes,
      long cpuMicros,
      long peakMemoryBytes,
      long wallMillis)
      implements Message {}

  /// Why a process ended: by itself (also when its own doing got it signalled), by its timeout, or
  /// because the control plane cancelled it.
  enum EndCause {
    SELF,
    TIMEOUT,
    CANCELLED
  }

  /// A file or directory of the workspace.
  ///
  /// @param path relative to the workspace, `/`-separated, empty for the workspace itself
  /// @param mode permission bits, 0 to 07777
  /// @param modifiedMillis since the epoch
  record FileInfo(String path, FileKind kind, long sizeBytes, int mode, long modifiedMillis)
      implements Message {}

  enum FileKind {
    FILE,
    DIRECTORY,
    LINK,
    OTHER
  }

  /// @param truncated more entries exist than [Limits#LIST_ENTRIES]
  record FileList(List<FileInfo> entries, boolean truncated) implements Message {
    public FileList {
      entries = List.copyOf(entries);
    }
  }

  /// A piece of a file, at most [Limits#CHUNK_BYTES].
  record Chunk(byte[] bytes) implements Message {}

  /// All chunks were sent.
  record ChunksEnd(long totalBytes) implements Message {}

  record Done() implements Message {}

  /// The request could not be done; the connection ends.
  ///
  /// @param message for a person; made by the agent, hence untrusted and shown as such
  record Failure(FailureCode code, String message) implements Message {}

  enum FailureCode {
    /// The program was not found or cannot be executed.
    NOT_EXECUTABLE,
    /// cwd is missing or not a directory.
    BAD_CWD,
    /// No such call in this life of the agent.
    UNKNOWN_CALL,
    /// The call ran and was released: it is never run again.
    ALREADY_RAN,
    WRONG_OFFSET,
    STDIN_CLOSED,
    /// The path leaves the workspace, by `..` or by a link.
    OUTSIDE_WORKSPACE,
    NOT_FOUND,
    NOT_A_FILE,
    NOT_A_DIRECTORY,
    NOT_EMPTY,
    DISK_FULL,
    /// A limit of the agent was reached; the message names it.
    LIMIT,
    /// The message could not be understood.
    BAD_REQUEST,
    /// Anything else the operating system said.
    IO
  }
}
