package dev.foredeck.agent;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.FailureCode;
import dev.foredeck.protocol.Wire.MalformedMessageException;
import java.io.IOException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicBoolean;
import org.jspecify.annotations.Nullable;

/// Answers one request on its connection.
///
/// Threads: one thread per connection, and a second one that listens where the control plane may
/// speak while the first one waits.
final class Requests {
  /// Listings at a time: each may hold a few megabytes.
  private static final int LISTINGS = 2;

  private final ProcessTable processes;
  private final Subtree workspace;
  private final Semaphore listings = new Semaphore(LISTINGS);

  Requests(ProcessTable processes, Subtree workspace) {
    this.processes = processes;
    this.workspace = workspace;
  }

  /// Answers and returns when the conversation is over; the caller closes the connection.
  void serve(Connection connection, Message.Request request)
      throws IOException, InterruptedException {
    try {
      answer(connection, request);
    } catch (FailureException e) {
      connection.send(e.failure());
    } catch (KernelException e) {
      connection.send(new Message.Failure(FailureCode.IO, String.valueOf(e.getMessage())));
    } catch (MalformedMessageException e) {
      connection.send(new Message.Failure(FailureCode.BAD_REQUEST, String.valueOf(e.getMessage())));
    }
  }

  private void answer(Connection connection, Message.Request request)
      throws IOException, FailureException, InterruptedException {
    switch (request) {
      case Message.StartProcess m ->
          follow(connection, processes.start(m), m.stdoutOffset(), m.stderrOffset());
      case Message.Attach m ->
          follow(connection, processes.find(m.callId()), m.stdoutOffset(), m.stderrOffset());
      case Message.Signal m -> {
        processes.find(m.callId()).signal(m.signal());
        connection.send(new Message.Done());
      }
      case Message.Terminate m -> {
        processes.find(m.callId()).terminate(m.graceMillis(), m.cause());
        connection.send(new Message.Done());
      }
      case Message.WriteStdin m -> writeStdin(connection, m);
      case Message.Release m -> {
        processes.release(m.callId());
        connection.send(new Message.Done());
      }
      case Message.Ping _ -> connection.send(new Message.Done());
      case Message.ReadFile m -> readFile(connection, m);
      case Message.WriteFile m -> writeFile(connection, m);
      case Message.ListFiles m -> {
        listings.acquire();
        try {
          connection.send(workspace.list(m.path(), m.depth()));
        } finally {
          listings.release();
        }
      }
      case Message.StatFile m -> connection.send(workspace.status(m.path()));
      case Message.RemoveFile m -> {
        workspace.remove(m.path(), m.recursive());
        connection.send(new Message.Done());
      }
      case Message.MoveFile m -> {
        workspace.move(m.from(), m.to());
        connection.send(new Message.Done());
      }
    }
  }

  private void follow(Connection connection, CallProcess call, long stdout, long stderr)
      throws IOException, FailureException, InterruptedException {
    CallProcess.Attachment attachment = call.attach(connection, stdout, stderr);
    Thread listener = null;
    try {
      connection.send(new Message.Started(call.pid()));
      listener = Thread.ofVirtual().start(() -> listen(connection, call, attachment));
      for (Message next = call.next(attachment); next != null; next = call.next(attachment)) {
        connection.send(next);
        if (next instanceof Message.Ended) {
          // The control plane commits, acknowledges and releases; then it closes.
          listener.join();
          return;
        }
      }
      if (call.isReleased()) {
        // By this connection or another: the answer to a release may still be on its way.
        listener.join();
      }
    } finally {
      call.detach(attachment);
      if (listener != null) {
        connection.close();
        listener.join();
      }
    }
  }

  /// Hears acknowledgements and the release until the control plane closes.
  private void listen(Connection connection, CallProcess call, CallProcess.Attachment attachment) {
    try {
      for (Message m = connection.receive(); m != null; m = connection.receive()) {
        switch (m) {
          case Message.Ack ack -> call.acknowledge(attachment, ack.channel(), ack.offset());
          case Message.Release release when release.callId().equals(call.callId()) -> {
            processes.release(release.callId());
            connection.send(new Message.Done());
          }
          default ->
              throw new FailureException(
                  FailureCode.BAD_REQUEST,
                  m.getClass().getSimpleName() + " has no place after a process started");
        }
      }
    } catch (FailureException e) {
      answerLast(connection, e.failure());
    } catch (MalformedMessageException e) {
      answerLast(
          connection, new Message.Failure(FailureCode.BAD_REQUEST, String.valueOf(e.getMessage())));
    } catch (IOException _) {
      // Closed by either side.
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    } finally {
      call.detach(attachment);
      connection.close();
    }
  }

  private static void answerLast(Connection connection, Message.Failure failure) {
    try {
      connection.send(failure);
    } catch (IOException _) {
      // Nobody is there to hear it.
    }
  }

  private void writeStdin(Connection connection, Message.WriteStdin request)
      throws IOException, FailureException, InterruptedException {
    StdinPipe stdin = processes.find(request.callId()).stdin();
    AtomicBoolean abandoned = new AtomicBoolean();
    // The pipe may be full for long: who asked may go meanwhile.
    Thread listener =
        Thread.ofVirtual()
            .start(() -> {
              try {
                Message _ = connection.receive();
              } catch (IOException _) {
                // Gone, as with the end of the stream.
              }
              abandoned.set(true);
              stdin.wake();
            });
    try {
      long accepted = stdin.write(request.offset(), request.bytes(), request.end(), abandoned::get);
      connection.send(new Message.StdinAck(accepted));
    } catch (FailureException e) {
      connection.send(e.failure());
    } finally {
      connection.close();
      listener.join();
    }
  }

  private void readFile(Connection connection, Message.ReadFile request)
      throws IOException, FailureException {
    try (Subtree.Reading reading = workspace.read(request.path(), request.offset())) {
      connection.send(reading.file());
      long total = 0;
      while (true) {
        byte[] bytes = reading.next(request.maxBytes() - total);
        if (bytes.length == 0) {
          connection.send(new Message.ChunksEnd(total));
          return;
        }
        total += bytes.length;
        connection.send(new Message.Chunk(bytes));
      }
    }
  }

  private void writeFile(Connection connection, Message.WriteFile request) throws IOException {
    AtomicBoolean whole = new AtomicBoolean();
    try {
      receiveFile(connection, request, whole);
    } catch (FailureException e) {
      connection.send(e.failure());
      // The rest of the file is on its way: closing over unread bytes would take the answer with
      // it.
      @Nullable Message rest = whole.get() ? null : connection.receive();
      while (rest instanceof Message.Chunk) {
        rest = connection.receive();
      }
    }
  }

  /// @param whole is set when nothing more of the file is to come
  private void receiveFile(Connection connection, Message.WriteFile request, AtomicBoolean whole)
      throws IOException, FailureException {
    try (Subtree.Writing writing = workspace.write(request.path(), request.mode())) {
      while (true) {
        @Nullable Message m = connection.receive();
        switch (m) {
          case null -> {
            // Gone before the end: nothing changes.
            return;
          }
          case Message.Chunk chunk -> writing.append(chunk.bytes());
          case Message.ChunksEnd end -> {
            whole.set(true);
            if (end.totalBytes() != writing.bytes()) {
              throw new FailureException(
                  FailureCode.BAD_REQUEST,
                  writing.bytes() + " bytes came, not " + end.totalBytes());
            }
            connection.send(writing.finish());
            return;
          }
          default ->
              throw new FailureException(
                  FailureCode.BAD_REQUEST,
                  m.getClass().getSimpleName() + " has no place in a file");
        }
      }
    }
  }
}
