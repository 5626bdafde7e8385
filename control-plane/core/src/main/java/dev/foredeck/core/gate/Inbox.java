package dev.foredeck.core.gate;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Wire.MalformedMessageException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// Messages received while the last batch was being committed: what makes one commit carry much.
/// Bounded, so that an agent that sends faster than the database takes is held back by its own
/// socket.
final class Inbox {
  /// How long the first message of a connection waits for those that follow at once.
  private static final long LINGER_NANOS = 2_000_000;

  private final Connection connection;
  private final int maxMessages;
  private final int maxBytes;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private List<Message> waiting = new ArrayList<>();
  private int waitingBytes;
  private boolean closed;
  private boolean tookFirst;
  private @Nullable IOException failure;

  Inbox(Connection connection, int maxMessages, int maxBytes) {
    this.connection = connection;
    this.maxMessages = maxMessages;
    this.maxBytes = maxBytes;
  }

  /// Receives until the connection ends; runs on a thread of its own.
  void fill() {
    try {
      while (true) {
        Message message = connection.receive();
        if (message == null) {
          end(null);
          return;
        }
        put(message);
      }
    } catch (IOException e) {
      end(e);
    }
  }

  /// What a message holds of the bound in bytes. One that has no place in a process's stream is not
  /// kept until somebody looks at it: a listing has a megabyte, and they are as many as the agent
  /// likes.
  private static int weight(Message message) throws MalformedMessageException {
    return switch (message) {
      case Message.Output output -> output.bytes().length;
      case Message.Started _,
          Message.Ended _,
          Message.Failure _,
          Message.StdinAck _,
          Message.Done _ ->
          0;
      case Message other ->
          throw new MalformedMessageException(
              "a " + other.getClass().getSimpleName() + " in a process's stream");
    };
  }

  private void put(Message message) throws IOException {
    int weight = weight(message);
    lock.lock();
    try {
      while ((waiting.size() >= maxMessages || waitingBytes >= maxBytes) && !closed) {
        changed.awaitUninterruptibly();
      }
      if (closed) {
        throw new IOException("nobody takes messages any more");
      }
      waiting.add(message);
      waitingBytes += weight;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private void end(@Nullable IOException cause) {
    lock.lock();
    try {
      closed = true;
      failure = cause;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /// Frees [#fill] where it waits for room: nobody takes any more.
  void close() {
    end(null);
  }

  /// All that has arrived, waiting for the first.
  ///
  /// @return empty when the time was over
  /// @throws IOException when the connection has ended and everything was taken
  List<Message> take(long timeoutNanos) throws IOException {
    lock.lock();
    try {
      long left = timeoutNanos;
      while (waiting.isEmpty()) {
        if (closed) {
          throw failure != null ? failure : new IOException("the agent closed the connection");
        }
        if (left <= 0) {
          return List.of();
        }
        try {
          left = changed.awaitNanos(left);
        } catch (InterruptedException e) {
          Thread.currentThread().interrupt();
          throw new IOException("interrupted", e);
        }
      }
      linger();
      List<Message> taken = waiting;
      waiting = new ArrayList<>();
      waitingBytes = 0;
      changed.signalAll();
      return taken;
    } finally {
      lock.unlock();
    }
  }

  /// Most commands are short: their start, their output and their end can share a commit. Once for
  /// a connection, so that a stream is not held up; nothing depends on it.
  private void linger() {
    if (tookFirst) {
      return;
    }
    tookFirst = true;
    long left = LINGER_NANOS;
    try {
      while (left > 0 && !closed && goesOn(waiting.getLast())) {
        left = changed.awaitNanos(left);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private static boolean goesOn(Message message) {
    return message instanceof Message.Started || message instanceof Message.Output;
  }
}
