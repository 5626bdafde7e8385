package dev.foredeck.server;

import io.vertx.core.Context;
import io.vertx.core.buffer.Buffer;
import io.vertx.core.http.HttpServerRequest;
import java.io.IOException;
import java.io.InputStream;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Objects;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/// A request's body as a blocking stream. The socket is read only as fast as the stream is: at most
/// [#AHEAD] buffers wait here, the rest waits in the client.
///
/// Threading: fed by the event loop, read by one virtual thread; the lock guards every field but
/// those that are final.
final class RequestBody extends InputStream {
  private static final int AHEAD = 4;

  /// Bytes that wait here at most.
  static final int WINDOW = AHEAD * ForedeckServer.CHUNK_BYTES;

  private final HttpServerRequest request;
  private final Context context;
  private final long limit;
  private final Duration patience;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final ArrayDeque<Buffer> arrived = new ArrayDeque<>();
  private Buffer current = Buffer.buffer();
  private int position;
  private long total;
  private boolean started;
  private boolean ended;
  private End end = End.NONE;

  /// Why it ended before its time.
  enum End {
    NONE,
    DISCONNECTED,
    TOO_LARGE,
    SLOW
  }

  /// @param limit bytes of the whole body
  /// @param patience for the next piece
  RequestBody(HttpServerRequest request, Context context, long limit, Duration patience) {
    this.request = request;
    this.context = context;
    this.limit = limit;
    this.patience = patience;
  }

  /// On the event loop, before the request is paused no longer.
  void attach() {
    request.handler(this::arrive);
    request.endHandler(_ -> finish(End.NONE));
    request.exceptionHandler(_ -> finish(End.DISCONNECTED));
  }

  End end() {
    lock.lock();
    try {
      return end;
    } finally {
      lock.unlock();
    }
  }

  /// Whether the client has sent all of it.
  boolean complete() {
    lock.lock();
    try {
      return ended && end == End.NONE;
    } finally {
      lock.unlock();
    }
  }

  /// Nobody will read the rest: lets go of what waits here.
  void abandon() {
    lock.lock();
    try {
      arrived.clear();
    } finally {
      lock.unlock();
    }
  }

  @Override
  public int read() throws IOException {
    byte[] one = new byte[1];
    return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
  }

  @Override
  public int read(byte[] bytes, int offset, int length) throws IOException {
    Objects.checkFromIndexSize(offset, length, bytes.length);
    if (length == 0) {
      return 0;
    }
    lock.lock();
    try {
      if (position == current.length() && !next()) {
        return -1;
      }
      int count = Math.min(length, current.length() - position);
      current.getBytes(position, position + count, bytes, offset);
      position += count;
      return count;
    } finally {
      lock.unlock();
    }
  }

  /// Waits for the next buffer; false at the end. Holds the lock.
  private boolean next() throws IOException {
    if (!started) {
      started = true;
      demand(AHEAD);
    }
    long nanos = patience.toNanos();
    while (arrived.isEmpty()) {
      if (end != End.NONE) {
        throw new IOException(
            switch (end) {
              case DISCONNECTED -> "the client went away in the middle of the body";
              case TOO_LARGE -> "the body is larger than " + limit + " bytes";
              case SLOW -> "the client stopped sending in the middle of the body";
              case NONE -> "the body ended";
            });
      }
      if (ended) {
        return false;
      }
      try {
        nanos = changed.awaitNanos(nanos);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IOException("interrupted while reading the body", e);
      }
      if (nanos <= 0 && arrived.isEmpty() && !ended) {
        end = End.SLOW;
      }
    }
    current = arrived.removeFirst();
    position = 0;
    if (!ended) {
      demand(1);
    }
    return true;
  }

  private void demand(int buffers) {
    context.runOnContext(_ -> request.fetch(buffers));
  }

  private void arrive(Buffer buffer) {
    lock.lock();
    try {
      total += buffer.length();
      if (total > limit) {
        arrived.clear();
        end = End.TOO_LARGE;
      } else if (end == End.NONE && buffer.length() > 0) {
        arrived.addLast(buffer);
      } else if (end == End.NONE) {
        demand(1);
      }
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private void finish(End why) {
    lock.lock();
    try {
      if (!ended) {
        ended = true;
        if (end == End.NONE) {
          end = why;
        }
        if (why == End.DISCONNECTED) {
          arrived.clear();
        }
      }
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }
}
