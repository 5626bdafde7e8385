package dev.foredeck.core.gate;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/// Sends a file to an agent, which keeps all of it or nothing.
public final class FileSender {
  private static final int MODE = 0644;

  private FileSender() {}

  /// A file's bytes, piece by piece.
  public interface Chunks {
    /// @return at most [Limits#CHUNK_BYTES]; none at the end
    byte[] next();
  }

  public static Chunks of(byte[] bytes) {
    int[] at = {0};
    return () -> {
      int from = at[0];
      at[0] = Math.min(bytes.length, from + Limits.CHUNK_BYTES);
      return Arrays.copyOfRange(bytes, from, at[0]);
    };
  }

  /// What `chunks` throws ends the sending, and nothing of the file stays.
  ///
  /// @param deadline of each step
  /// @return the agent's answer; null when it closed without one
  public static @Nullable Message send(
      Connection connection, Agents.Deadline deadline, String path, Chunks chunks)
      throws IOException {
    try {
      connection.send(new Message.WriteFile(path, MODE));
      long total = 0;
      for (byte[] chunk = chunks.next(); chunk.length > 0; chunk = chunks.next()) {
        connection.send(new Message.Chunk(chunk));
        total += chunk.length;
        deadline.restart();
      }
      connection.send(new Message.ChunksEnd(total));
    } catch (IOException e) {
      // The agent says why before it closes; a full disk is the usual reason.
      if (connection.receive() instanceof Message.Failure failure) {
        return failure;
      }
      throw e;
    }
    return connection.receive();
  }
}
