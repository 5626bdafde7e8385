package dev.foredeck.driver.simulated;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.LoopbackConnection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.Failure;
import dev.foredeck.protocol.Message.FailureCode;
import dev.foredeck.protocol.Message.Greeting;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.jspecify.annotations.Nullable;

/// One life of a sandbox's agent: speaks the protocol as the real one does. It never lies; what
/// lies is put between it and the control plane ([FaultyConnection]).
///
/// Threads: one virtual thread per connection, one more while it reads a call. The table of
/// processes is guarded by `this`.
final class SimulatedAgent {
  private static final String VERSION = "simulated";
  private static final String ROOT = "/workspace";

  private final Greeting greeting;
  private final Workspace workspace;
  private final Pace pace;
  private final Programs.Effects effects;
  private final Programs.Effects starts;
  private final Map<String, SimulatedProcess> processes = new LinkedHashMap<>();
  private final Set<String> releasedIds = new LinkedHashSet<>();
  private final Set<Connection> connections = ConcurrentHashMap.newKeySet();
  private long nextPid = 2;
  private volatile boolean alive = true;

  /// @param starts is told the call's id when a program starts
  SimulatedAgent(
      String bootId,
      String token,
      Workspace workspace,
      Pace pace,
      Programs.Effects effects,
      Programs.Effects starts) {
    this.greeting = new Greeting(Limits.PROTOCOL_MIN, Limits.PROTOCOL_MAX, bootId, token, VERSION);
    this.workspace = workspace;
    this.pace = pace;
    this.effects = effects;
    this.starts = starts;
  }

  boolean isAlive() {
    return alive;
  }

  /// The control plane's end of a new connection, on which the greeting is under way.
  Connection dial() {
    LoopbackConnection.Pair pair = LoopbackConnection.pair();
    LoopbackConnection own = pair.right();
    connections.add(own);
    if (!alive) {
      own.close();
    }
    Thread.ofVirtual().name("simulated agent").start(() -> serve(own));
    return pair.left();
  }

  /// The agent's process dies, and with it all others.
  void die() {
    alive = false;
    Map<String, SimulatedProcess> gone;
    synchronized (this) {
      gone = new LinkedHashMap<>(processes);
      processes.clear();
    }
    gone.values().forEach(SimulatedProcess::vanish);
    connections.forEach(Connection::close);
    connections.clear();
  }

  private void serve(Connection connection) {
    try {
      connection.send(greeting);
      Message request = connection.receive();
      if (request instanceof Message.Request known) {
        answer(known, connection);
      } else if (request != null) {
        connection.send(new Failure(FailureCode.BAD_REQUEST, "a request was expected"));
      }
    } catch (AgentFailure e) {
      sendLast(connection, e.message());
    } catch (IOException _) {
      // The control plane has closed: it dials again, or it is gone.
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    } finally {
      // Not by try-with-resources, which would close before the failure is sent.
      connection.close();
      connections.remove(connection);
    }
  }

  private static void sendLast(Connection connection, Message message) {
    try {
      connection.send(message);
      // The other side closes when it has read it.
      Message ignored;
      do {
        ignored = connection.receive();
      } while (ignored != null);
    } catch (IOException _) {
      // Nobody wants to know.
    }
  }

  private void answer(Message.Request request, Connection connection)
      throws IOException, AgentFailure, InterruptedException {
    switch (request) {
      case Message.StartProcess start ->
          follow(start(start), connection, start.stdoutOffset(), start.stderrOffset());
      case Message.Attach attach ->
          follow(known(attach.callId()), connection, attach.stdoutOffset(), attach.stderrOffset());
      case Message.Signal signal -> {
        known(signal.callId()).signal(signal.signal());
        sendLast(connection, new Message.Done());
      }
      case Message.Terminate terminate -> {
        known(terminate.callId()).terminate(terminate.graceMillis(), terminate.cause());
        sendLast(connection, new Message.Done());
      }
      case Message.WriteStdin write -> {
        long accepted =
            known(write.callId()).writeStdin(write.offset(), write.bytes(), write.end());
        sendLast(connection, new Message.StdinAck(accepted));
      }
      case Message.Release release -> {
        release(release.callId());
        sendLast(connection, new Message.Done());
      }
      case Message.Ping _ -> sendLast(connection, new Message.Done());
      case Message.ReadFile read -> readFile(read, connection);
      case Message.WriteFile write -> writeFile(write, connection);
      case Message.ListFiles list ->
          sendLast(
              connection,
              workspace.list(list.path(), Math.clamp(list.depth(), 1, Limits.LIST_DEPTH)));
      case Message.StatFile stat -> sendLast(connection, workspace.stat(stat.path()));
      case Message.RemoveFile remove -> {
        workspace.remove(remove.path(), remove.recursive());
        sendLast(connection, new Message.Done());
      }
      case Message.MoveFile move -> {
        workspace.move(move.from(), move.to());
        sendLast(connection, new Message.Done());
      }
    }
  }

  private synchronized SimulatedProcess start(Message.StartProcess request) throws AgentFailure {
    String callId = request.callId();
    SimulatedProcess running = processes.get(callId);
    if (running != null) {
      return running;
    }
    if (releasedIds.contains(callId)) {
      throw new AgentFailure(FailureCode.ALREADY_RAN, "this call ran and was released");
    }
    if (processes.size() >= Limits.PROCESSES || !alive) {
      throw new AgentFailure(
          FailureCode.LIMIT, "at most " + Limits.PROCESSES + " processes are kept");
    }
    String cwd = request.cwd();
    boolean isFolder =
        cwd.equals("/")
            || cwd.equals("/tmp")
            || ((cwd + "/").startsWith(ROOT + "/")
                && workspace.isFolder(
                    cwd.length() <= ROOT.length() ? "" : cwd.substring(ROOT.length() + 1)));
    if (!isFolder) {
      throw new AgentFailure(FailureCode.BAD_CWD, cwd + " is not a directory");
    }
    Programs.Program program = Programs.find(request.argv(), request.script(), workspace, effects);
    SimulatedProcess process = new SimulatedProcess(callId, nextPid++, request.stdin(), pace);
    processes.put(callId, process);
    starts.happened(callId);
    process.start(program, request.timeoutMillis(), request.graceMillis());
    return process;
  }

  private synchronized SimulatedProcess known(String callId) throws AgentFailure {
    SimulatedProcess process = processes.get(callId);
    if (process == null) {
      throw new AgentFailure(FailureCode.UNKNOWN_CALL, "no such call in this life of the agent");
    }
    return process;
  }

  private synchronized void release(String callId) {
    SimulatedProcess process = processes.remove(callId);
    if (process != null) {
      process.release();
      releasedIds.add(callId);
      if (releasedIds.size() > Limits.RELEASED_IDS) {
        releasedIds.remove(releasedIds.iterator().next());
      }
    }
  }

  /// Sends what the call prints while this thread reads what the control plane says to it.
  private void follow(
      SimulatedProcess process, Connection connection, long stdoutOffset, long stderrOffset)
      throws IOException, AgentFailure, InterruptedException {
    SimulatedProcess.Attachment attachment = process.attach(connection, stdoutOffset, stderrOffset);
    try {
      connection.send(new Message.Started(process.pid));
      Thread sender =
          Thread.ofVirtual().name("output").start(() -> send(process, attachment, connection));
      try {
        for (Message said = connection.receive(); said != null; said = connection.receive()) {
          if (said instanceof Message.Ack ack) {
            process.acknowledge(attachment, ack.channel(), ack.offset());
          } else if (said instanceof Message.Release release) {
            sender.interrupt();
            sender.join();
            release(release.callId());
            sendLast(connection, new Message.Done());
            return;
          } else {
            throw new AgentFailure(FailureCode.BAD_REQUEST, "an attached connection takes Ack");
          }
        }
      } finally {
        sender.interrupt();
      }
    } finally {
      process.detach(attachment);
    }
  }

  private static void send(
      SimulatedProcess process, SimulatedProcess.Attachment attachment, Connection connection) {
    try {
      @Nullable Message next;
      do {
        next = process.next(attachment);
        if (next == null) {
          connection.close();
          return;
        }
        connection.send(next);
      } while (!(next instanceof Message.Ended));
    } catch (IOException _) {
      connection.close();
    } catch (InterruptedException _) {
      // The reader has gone.
    }
  }

  private void readFile(Message.ReadFile request, Connection connection)
      throws IOException, AgentFailure {
    byte[] bytes = workspace.read(request.path());
    connection.send(workspace.stat(request.path()));
    long total = 0;
    int end = (int) Math.min(bytes.length, saturatedAdd(request.offset(), request.maxBytes()));
    for (int from = (int) Math.min(bytes.length, request.offset()); from < end; ) {
      int count = Math.min(Limits.CHUNK_BYTES, end - from);
      connection.send(new Message.Chunk(Arrays.copyOfRange(bytes, from, from + count)));
      from += count;
      total += count;
    }
    sendLast(connection, new Message.ChunksEnd(total));
  }

  private static long saturatedAdd(long a, long b) {
    long sum = a + b;
    return sum < 0 ? Long.MAX_VALUE : sum;
  }

  private void writeFile(Message.WriteFile request, Connection connection)
      throws IOException, AgentFailure {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    while (true) {
      Message said = connection.receive();
      if (said instanceof Message.Chunk chunk) {
        workspace.checkFits(bytes.size() + (long) chunk.bytes().length);
        bytes.writeBytes(chunk.bytes());
      } else if (said instanceof Message.ChunksEnd end) {
        if (end.totalBytes() != bytes.size()) {
          throw new AgentFailure(
              FailureCode.BAD_REQUEST, bytes.size() + " bytes came of " + end.totalBytes());
        }
        sendLast(connection, workspace.write(request.path(), request.mode(), bytes.toByteArray()));
        return;
      } else if (said == null) {
        return;
      } else {
        throw new AgentFailure(FailureCode.BAD_REQUEST, "a chunk was expected");
      }
    }
  }
}
