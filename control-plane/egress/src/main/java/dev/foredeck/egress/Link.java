package dev.foredeck.egress;

import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// A link that stands: frames in both directions, and an end when the other side is silent for too
/// long.
///
/// Threading: one thread reads. Any thread sends: frames go through a bounded queue to a writer
/// thread, which puts what waits into one write. The reader itself must never wait for room there
/// (both sides' readers could wait for each other for ever): it uses [#answer].
final class Link implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Link.class);
  private static final int QUEUE_FRAMES = 16 * 1024;
  private static final int WRITE_BYTES = 64 * 1024;
  private static final long LOOK_MILLIS = 100;
  private static final long FOR_EVER_MILLIS = 3_650L * 86_400_000;

  private final String peer;
  private final ByteConnection connection;
  private final DataInputStream in;
  private final BlockingQueue<byte[]> outgoing = new ArrayBlockingQueue<>(QUEUE_FRAMES);
  private final Deadline deadline;
  private final long pingMillis;
  private volatile boolean closed;

  /// @param peer for the log
  /// @param connection authenticated, both ways
  /// @param in what comes from it, as [#input] made it
  /// @param limits how long a side may be silent
  Link(
      String peer,
      ByteConnection connection,
      DataInputStream in,
      LinkLimits limits,
      ScheduledExecutorService timer,
      LongSupplier nanoTime) {
    this.peer = peer;
    this.connection = connection;
    this.pingMillis = limits.silenceMillis() / 3;
    this.deadline =
        new Deadline(
            timer,
            nanoTime,
            FOR_EVER_MILLIS,
            expiry -> close("the other side was silent: " + expiry.reason()));
    this.in = in;
    deadline.whileActive(limits.silenceMillis());
    Thread.ofVirtual().name("link-writer-" + peer).start(this::write);
  }

  /// The bytes of a connection as a stream.
  static DataInputStream input(ByteConnection connection) {
    InputStream raw =
        new InputStream() {
          @Override
          public int read() throws IOException {
            byte[] one = new byte[1];
            return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
          }

          @Override
          public int read(byte[] bytes, int offset, int length) throws IOException {
            if (length == 0) {
              return 0;
            }
            return connection.read(ByteBuffer.wrap(bytes, offset, length));
          }
        };
    return new DataInputStream(new BufferedInputStream(raw, WRITE_BYTES));
  }

  /// One frame, written at once: for the handshake, before there is a link.
  static void write(ByteConnection connection, LinkMessage message) throws IOException {
    ByteBuffer frame = ByteBuffer.wrap(LinkCodec.encode(message));
    while (frame.hasRemaining()) {
      connection.write(frame);
    }
  }

  /// Waits for the next message that is no ping.
  ///
  /// @throws IOException at the end of the link, however it came
  LinkMessage receive() throws IOException {
    while (true) {
      LinkMessage message = LinkCodec.read(in, LinkCodec.MAX_FRAME);
      deadline.touch();
      if (!(message instanceof LinkMessage.Ping)) {
        return message;
      }
    }
  }

  /// Queues a message, waiting for room.
  ///
  /// @throws IOException where the link ended
  void send(LinkMessage message) throws IOException {
    byte[] frame = LinkCodec.encode(message);
    try {
      while (!closed) {
        if (outgoing.offer(frame, LOOK_MILLIS, TimeUnit.MILLISECONDS)) {
          return;
        }
      }
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted");
    }
    throw new IOException("the link is down");
  }

  /// Queues a message without waiting: where there is no room, the other side does not read what it
  /// asked for, and the link ends.
  void answer(LinkMessage message) {
    try {
      if (!closed && !outgoing.offer(LinkCodec.encode(message))) {
        close("the other side does not read");
      }
    } catch (IOException e) {
      close("a message could not be written: " + e.getMessage());
    }
  }

  private void write() {
    ByteArrayOutputStream batch = new ByteArrayOutputStream(WRITE_BYTES);
    byte[] ping = ping();
    try {
      while (!closed) {
        byte[] frame = outgoing.poll(pingMillis, TimeUnit.MILLISECONDS);
        batch.reset();
        batch.writeBytes(frame == null ? ping : frame);
        while (batch.size() < WRITE_BYTES) {
          byte[] next = outgoing.poll();
          if (next == null) {
            break;
          }
          batch.writeBytes(next);
        }
        ByteBuffer bytes = ByteBuffer.wrap(batch.toByteArray());
        while (bytes.hasRemaining()) {
          connection.write(bytes);
        }
      }
    } catch (InterruptedException _) {
      close("interrupted");
    } catch (IOException e) {
      close("it broke: " + e.getMessage());
    }
  }

  private static byte[] ping() {
    try {
      return LinkCodec.encode(new LinkMessage.Ping());
    } catch (IOException bug) {
      throw new IllegalStateException(bug);
    }
  }

  boolean isClosed() {
    return closed;
  }

  private void close(String why) {
    if (!closed) {
      log.info("the link to {} ends: {}", peer, why);
    }
    close();
  }

  /// Ends the link at once; whoever waits in [#receive] or [#send] is told.
  @Override
  public void close() {
    closed = true;
    deadline.close();
    try {
      connection.close();
    } catch (IOException e) {
      log.debug("a link could not be closed: {}", e.toString());
    }
  }
}
