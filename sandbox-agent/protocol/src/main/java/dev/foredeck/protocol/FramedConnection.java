package dev.foredeck.protocol;

import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.channels.SocketChannel;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// A [Connection] over a stream of bytes.
///
/// Any number of threads may send, one at a time writes (a [ReentrantLock], so that a virtual
/// thread that waits for it does not hold its carrier); one thread receives; any thread closes.
public final class FramedConnection implements Connection {
  private final InputStream in;
  private final OutputStream out;
  private final AutoCloseable transport;
  private final ReentrantLock sending = new ReentrantLock();
  private final AtomicBoolean closed = new AtomicBoolean();

  /// @param transport closing it must free a thread that blocks in `in` or `out`
  public FramedConnection(InputStream in, OutputStream out, AutoCloseable transport) {
    this.in = new BufferedInputStream(in);
    this.out = out;
    this.transport = transport;
  }

  /// @param channel connected and blocking (unix or TCP); owned by the connection from here on
  public static FramedConnection over(SocketChannel channel) {
    return new FramedConnection(
        ChannelStreams.input(channel), ChannelStreams.output(channel), channel);
  }

  /// @throws IllegalArgumentException when the message passes a limit: nothing was sent
  @Override
  public void send(Message message) throws IOException {
    byte[] frame = Wire.encode(message);
    sending.lock();
    try {
      if (closed.get()) {
        throw new IOException("the connection is closed");
      }
      // One write: a frame that is cut by a thread's death would be read as another message.
      out.write(frame);
      out.flush();
    } catch (IOException e) {
      // Half a frame may be out: nothing that follows could be understood.
      close();
      throw e;
    } finally {
      sending.unlock();
    }
  }

  @Override
  public @Nullable Message receive() throws IOException {
    if (closed.get()) {
      throw new IOException("the connection is closed");
    }
    return Wire.read(in);
  }

  @Override
  public void close() {
    if (closed.compareAndSet(false, true)) {
      try {
        transport.close();
      } catch (InterruptedException _) {
        Thread.currentThread().interrupt();
      } catch (Exception _) {
        // Closing is the end of it either way: there is nothing left to do with the transport.
      }
    }
  }
}
