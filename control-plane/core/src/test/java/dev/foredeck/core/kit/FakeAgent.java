package dev.foredeck.core.kit;

import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.FailureCode;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// An agent in memory that keeps the protocol to the letter, unless it is told to lie. It outlives
/// the control planes that talk to it, as a real one does.
public final class FakeAgent {
  /// Answers instead of the agent.
  public interface Liar {
    /// @return whether it dealt with the request; false leaves it to the agent
    boolean answer(Message.Request request, Connection connection)
        throws IOException, InterruptedException;
  }

  private final Map<String, Program> programs;
  private final int spoolBytes;
  private final ReentrantLock lock = new ReentrantLock();
  private final Map<String, FakeProcess> processes = new HashMap<>();
  private final Set<String> released = new HashSet<>();
  private final Map<String, Connection> attached = new HashMap<>();
  private final Map<String, Integer> runs = new TreeMap<>();
  private final Map<String, byte[]> files = new TreeMap<>();
  private final List<Message.Request> requests = new CopyOnWriteArrayList<>();
  private final List<Connection> connections = new CopyOnWriteArrayList<>();
  private final AtomicLong pids = new AtomicLong(100);
  private volatile @Nullable Liar liar;
  private volatile String bootId;
  private volatile boolean dead;
  private volatile long diskBytes = Long.MAX_VALUE;

  FakeAgent(String bootId, Map<String, Program> programs, int spoolBytes) {
    this.bootId = bootId;
    this.programs = programs;
    this.spoolBytes = spoolBytes;
  }

  public void lie(Liar next) {
    liar = next;
  }

  /// What an agent that was started anew is: another boot id, no process of before.
  public void reboot(String next) {
    // First what the control plane sees: a dead agent tells of no process's end.
    List<FakeProcess> before = all();
    lock.lock();
    try {
      processes.clear();
      attached.clear();
    } finally {
      lock.unlock();
    }
    bootId = next;
    connections.forEach(Connection::close);
    before.forEach(process -> process.signal(9));
  }

  public void diskBytes(long most) {
    diskBytes = most;
  }

  String bootId() {
    return bootId;
  }

  boolean dead() {
    return dead;
  }

  void die() {
    dead = true;
    connections.forEach(Connection::close);
    all().forEach(FakeProcess::wake);
  }

  private List<FakeProcess> all() {
    lock.lock();
    try {
      return new ArrayList<>(processes.values());
    } finally {
      lock.unlock();
    }
  }

  /// Greets and serves one request; returns when the connection is done with.
  void serve(Connection connection, String token) {
    connections.add(connection);
    try (connection) {
      connection.send(
          new Message.Greeting(Limits.PROTOCOL_MIN, Limits.PROTOCOL_MAX, bootId, token, "fake"));
      if (connection.receive() instanceof Message.Request request) {
        requests.add(request);
        Liar lie = liar;
        if (lie == null || !lie.answer(request, connection)) {
          answer(request, connection);
        }
      }
    } catch (IOException _) {
      // The other side left.
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      connections.remove(connection);
    }
  }

  private void answer(Message.Request request, Connection connection)
      throws IOException, InterruptedException {
    if (dead) {
      return;
    }
    switch (request) {
      case Message.StartProcess start -> {
        FakeProcess process;
        lock.lock();
        try {
          if (released.contains(start.callId())) {
            refuse(connection, FailureCode.ALREADY_RAN, "it ran and was released");
            return;
          }
          process = processes.get(start.callId());
          if (process == null) {
            Program program = programs.get(start.argv().getFirst());
            if (program == null) {
              refuse(connection, FailureCode.NOT_EXECUTABLE, "not found: " + start.argv());
              return;
            }
            if (processes.size() >= Limits.PROCESSES) {
              refuse(connection, FailureCode.LIMIT, "too many processes");
              return;
            }
            process = new FakeProcess(this, start, pids.incrementAndGet(), spoolBytes);
            processes.put(start.callId(), process);
            runs.merge(start.callId(), 1, Integer::sum);
            process.begin(program);
          }
        } finally {
          lock.unlock();
        }
        attach(process, start.stdoutOffset(), start.stderrOffset(), connection);
      }
      case Message.Attach attach -> {
        FakeProcess process = known(attach.callId());
        if (process == null) {
          refuse(connection, FailureCode.UNKNOWN_CALL, "no such call");
        } else {
          attach(process, attach.stdoutOffset(), attach.stderrOffset(), connection);
        }
      }
      case Message.Signal signal -> {
        FakeProcess process = known(signal.callId());
        if (process == null || !process.running()) {
          refuse(connection, FailureCode.UNKNOWN_CALL, "no such call");
        } else {
          process.signal(signal.signal());
          connection.send(new Message.Done());
        }
      }
      case Message.Terminate terminate -> {
        FakeProcess process = known(terminate.callId());
        if (process == null) {
          refuse(connection, FailureCode.UNKNOWN_CALL, "no such call");
        } else {
          process.terminate(terminate.graceMillis(), terminate.cause());
          connection.send(new Message.Done());
        }
      }
      case Message.WriteStdin write -> {
        FakeProcess process = known(write.callId());
        if (process == null) {
          refuse(connection, FailureCode.UNKNOWN_CALL, "no such call");
          return;
        }
        long accepted = process.stdin(write.offset(), write.bytes(), write.end());
        if (accepted == -1) {
          refuse(connection, FailureCode.WRONG_OFFSET, "another offset comes next");
        } else if (accepted == -2) {
          refuse(connection, FailureCode.STDIN_CLOSED, "stdin is closed");
        } else {
          connection.send(new Message.StdinAck(accepted));
        }
      }
      case Message.Release release -> {
        release(release.callId());
        connection.send(new Message.Done());
      }
      case Message.Ping _ -> connection.send(new Message.Done());
      case Message.ReadFile read -> {
        byte[] bytes = file(read.path());
        if (outside(read.path())) {
          refuse(connection, FailureCode.OUTSIDE_WORKSPACE, "outside");
        } else if (bytes == null) {
          refuse(connection, FailureCode.NOT_FOUND, "there is no " + read.path());
        } else {
          connection.send(info(read.path(), bytes.length));
          long most =
              Math.min(bytes.length, read.offset() + Math.min(bytes.length, read.maxBytes()));
          for (int at = (int) read.offset(); at < most; at += Limits.CHUNK_BYTES) {
            int end = (int) Math.min(most, at + (long) Limits.CHUNK_BYTES);
            connection.send(new Message.Chunk(java.util.Arrays.copyOfRange(bytes, at, end)));
          }
          connection.send(new Message.ChunksEnd(most - read.offset()));
        }
      }
      case Message.WriteFile write -> {
        if (outside(write.path())) {
          refuse(connection, FailureCode.OUTSIDE_WORKSPACE, "outside");
          return;
        }
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        while (true) {
          switch (connection.receive()) {
            case Message.Chunk chunk -> {
              bytes.writeBytes(chunk.bytes());
              if (bytes.size() > diskBytes) {
                refuse(connection, FailureCode.DISK_FULL, "no space left");
                return;
              }
            }
            case Message.ChunksEnd _ -> {
              write(write.path(), bytes.toByteArray());
              connection.send(info(write.path(), bytes.size()));
              return;
            }
            case null -> {
              return;
            }
            case Message other -> throw new IOException("unexpected " + other);
          }
        }
      }
      case Message.ListFiles list -> {
        List<Message.FileInfo> entries = new ArrayList<>();
        lock.lock();
        try {
          files.forEach((path, bytes) -> {
            if (list.path().isEmpty() || path.startsWith(list.path() + "/")) {
              entries.add(info(path, bytes.length));
            }
          });
        } finally {
          lock.unlock();
        }
        connection.send(new Message.FileList(entries, false));
      }
      case Message.StatFile stat -> {
        byte[] bytes = file(stat.path());
        if (bytes == null) {
          refuse(connection, FailureCode.NOT_FOUND, "there is no " + stat.path());
        } else {
          connection.send(info(stat.path(), bytes.length));
        }
      }
      case Message.RemoveFile remove -> {
        lock.lock();
        try {
          if (files.remove(remove.path()) == null) {
            refuse(connection, FailureCode.NOT_FOUND, "there is no " + remove.path());
          } else {
            connection.send(new Message.Done());
          }
        } finally {
          lock.unlock();
        }
      }
      case Message.MoveFile move -> {
        lock.lock();
        try {
          byte[] bytes = files.remove(move.from());
          if (bytes == null) {
            refuse(connection, FailureCode.NOT_FOUND, "there is no " + move.from());
          } else {
            files.put(move.to(), bytes);
            connection.send(new Message.Done());
          }
        } finally {
          lock.unlock();
        }
      }
    }
  }

  private void attach(FakeProcess process, long stdoutFrom, long stderrFrom, Connection connection)
      throws IOException, InterruptedException {
    if (!process.has(Channel.STDOUT, stdoutFrom) || !process.has(Channel.STDERR, stderrFrom)) {
      refuse(connection, FailureCode.WRONG_OFFSET, "not in the spool");
      return;
    }
    lock.lock();
    try {
      Connection older = attached.put(process.start.callId(), connection);
      if (older != null) {
        older.close();
      }
    } finally {
      lock.unlock();
    }
    // What is committed needs no room in the spool any more, also where the Ack was never sent.
    process.acknowledge(Channel.STDOUT, stdoutFrom);
    process.acknowledge(Channel.STDERR, stderrFrom);
    connection.send(new Message.Started(process.pid));
    java.util.concurrent.atomic.AtomicBoolean gone =
        new java.util.concurrent.atomic.AtomicBoolean();
    Thread acks =
        Thread.ofVirtual()
            .name("acks-" + process.start.callId())
            .start(() -> {
              try {
                listen(process, connection);
              } catch (IOException _) {
                // It left: as good as its end.
              } finally {
                gone.set(true);
                process.wake();
              }
            });
    long stdout = stdoutFrom;
    long stderr = stderrFrom;
    while (true) {
      switch (process.next(stdout, stderr, gone::get)) {
        case null -> {
          return;
        }
        case Message.Output output -> {
          connection.send(output);
          if (output.channel() == Channel.STDOUT) {
            stdout += output.bytes().length;
          } else {
            stderr += output.bytes().length;
          }
        }
        case Message end -> {
          connection.send(end);
          acks.join();
          return;
        }
      }
    }
  }

  /// Acknowledgements and the release, which come on the call's own connection.
  private void listen(FakeProcess process, Connection connection) throws IOException {
    while (true) {
      switch (connection.receive()) {
        case Message.Ack ack -> process.acknowledge(ack.channel(), ack.offset());
        case Message.Release release when release.callId().equals(process.start.callId()) -> {
          requests.add(release);
          release(release.callId());
          connection.send(new Message.Done());
        }
        case null -> {
          return;
        }
        case Message other -> throw new IOException("unexpected " + other);
      }
    }
  }

  private void release(String callId) {
    lock.lock();
    try {
      if (processes.remove(callId) != null) {
        released.add(callId);
      }
    } finally {
      lock.unlock();
    }
  }

  private static void refuse(Connection connection, FailureCode code, String message)
      throws IOException {
    connection.send(new Message.Failure(code, message));
  }

  private static boolean outside(String path) {
    return path.startsWith("/") || path.contains("..");
  }

  private static Message.FileInfo info(String path, long size) {
    return new Message.FileInfo(path, Message.FileKind.FILE, size, 0644, 0);
  }

  private @Nullable FakeProcess known(String call) {
    lock.lock();
    try {
      return processes.get(call);
    } finally {
      lock.unlock();
    }
  }

  // What programs and tests call.

  public void write(String path, byte[] bytes) {
    lock.lock();
    try {
      files.put(path, bytes.clone());
    } finally {
      lock.unlock();
    }
  }

  public byte @Nullable [] file(String path) {
    lock.lock();
    try {
      return files.get(path);
    } finally {
      lock.unlock();
    }
  }

  public FakeProcess process(String call) {
    FakeProcess process = known(call);
    if (process == null) {
      throw new AssertionError("the agent does not know call " + call);
    }
    return process;
  }

  public boolean knows(String call) {
    return known(call) != null;
  }

  /// How often each call's program was started.
  public Map<String, Integer> runs() {
    lock.lock();
    try {
      return Map.copyOf(runs);
    } finally {
      lock.unlock();
    }
  }

  public List<Message.Request> requests() {
    return List.copyOf(requests);
  }
}
