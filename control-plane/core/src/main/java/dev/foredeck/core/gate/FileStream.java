package dev.foredeck.core.gate;

import dev.foredeck.core.ProblemException;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.FileInfo;
import java.io.IOException;
import java.io.InputStream;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.function.Consumer;

/// A file's bytes as they come from the agent. Records the call's end exactly once: at the last
/// byte, at the first fault, or when it is closed before.
final class FileStream extends InputStream {
  private final Connection connection;
  private final Agents.Deadline deadline;
  private final Consumer<CallResult> onEnd;
  private final Clock clock;
  private final Instant began;
  private byte[] chunk = new byte[0];
  private int position;
  private long total;
  private boolean ended;

  FileStream(
      Connection connection, Agents.Deadline deadline, Consumer<CallResult> onEnd, Clock clock) {
    this.connection = connection;
    this.deadline = deadline;
    this.onEnd = onEnd;
    this.clock = clock;
    this.began = clock.instant();
  }

  /// Asks for the file.
  ///
  /// @throws ProblemException when the agent refuses; the call's end is recorded then
  FileInfo begin(String path) {
    try {
      connection.send(new Message.ReadFile(path, 0, Long.MAX_VALUE));
      return Gate.info(connection.receive());
    } catch (ProblemException e) {
      end(CallStatus.FAILED, e.problem().detail());
      throw e;
    } catch (IOException e) {
      ProblemException problem = Gate.unanswered(e);
      end(CallStatus.FAILED, problem.problem().detail());
      throw problem;
    }
  }

  @Override
  public int read() throws IOException {
    byte[] one = new byte[1];
    return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
  }

  @Override
  public int read(byte[] target, int offset, int length) throws IOException {
    if (length == 0) {
      return 0;
    }
    while (position == chunk.length) {
      if (ended) {
        return -1;
      }
      next();
    }
    int n = Math.min(length, chunk.length - position);
    System.arraycopy(chunk, position, target, offset, n);
    position += n;
    return n;
  }

  private void next() throws IOException {
    try {
      deadline.restart();
      switch (connection.receive()) {
        case Message.Chunk more -> {
          chunk = more.bytes();
          position = 0;
          total += chunk.length;
        }
        case Message.ChunksEnd end -> {
          if (end.totalBytes() != total) {
            throw new IOException("the agent sent " + total + " bytes of " + end.totalBytes());
          }
          end(CallStatus.EXITED, "");
        }
        case Message.Failure failure -> throw new IOException(failure.message());
        case null -> throw new IOException("the agent closed the connection in mid-file");
        case Message other ->
            throw new IOException("an unexpected " + other.getClass().getSimpleName());
      }
    } catch (IOException e) {
      String why = e.getMessage();
      end(CallStatus.FAILED, why == null ? "the file could not be read" : why);
      throw e;
    }
  }

  @Override
  public void close() {
    end(CallStatus.CANCELLED, "the reader left after " + total + " bytes");
  }

  private void end(CallStatus status, String reason) {
    if (ended) {
      return;
    }
    ended = true;
    deadline.close();
    connection.close();
    Instant now = clock.instant();
    onEnd.accept(
        new CallResult(
            status,
            status == CallStatus.EXITED ? 0 : -1,
            0,
            reason,
            0,
            0,
            Duration.between(began, now).toMillis(),
            total,
            now));
  }
}
