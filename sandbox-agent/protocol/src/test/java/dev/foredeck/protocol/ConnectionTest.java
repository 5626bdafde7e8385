package dev.foredeck.protocol;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// What every [Connection] keeps, run on each of them.
@Timeout(60)
class ConnectionTest {
  @TempDir Path folder;
  private final ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor();
  private final List<AutoCloseable> opened = new ArrayList<>();

  enum Kind {
    UNIX_SOCKET,
    LOOPBACK
  }

  record Ends(Connection left, Connection right) {}

  private Ends ends(Kind kind) throws IOException {
    Ends ends =
        switch (kind) {
          case LOOPBACK -> {
            LoopbackConnection.Pair pair = LoopbackConnection.pair();
            yield new Ends(pair.left(), pair.right());
          }
          case UNIX_SOCKET -> {
            SocketChannel[] sockets = sockets();
            yield new Ends(FramedConnection.over(sockets[0]), FramedConnection.over(sockets[1]));
          }
        };
    opened.add(ends.left());
    opened.add(ends.right());
    return ends;
  }

  private SocketChannel[] sockets() throws IOException {
    UnixDomainSocketAddress address = UnixDomainSocketAddress.of(folder.resolve("s"));
    try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      server.bind(address);
      return new SocketChannel[] {SocketChannel.open(address), server.accept()};
    }
  }

  @AfterEach
  void close() throws Exception {
    for (AutoCloseable closeable : opened) {
      closeable.close();
    }
    threads.shutdownNow();
  }

  @ParameterizedTest
  @EnumSource
  void carriesEveryMessageInOrder(Kind kind) throws Exception {
    Ends ends = ends(kind);
    Future<?> sender =
        threads.submit(() -> {
          for (Message message : Samples.all()) {
            ends.left().send(message);
          }
          ends.left().close();
          return null;
        });
    for (Message message : Samples.all()) {
      assertThat(ends.right().receive()).usingRecursiveComparison().isEqualTo(message);
    }
    assertThat(ends.right().receive()).isNull();
    sender.get();
  }

  @ParameterizedTest
  @EnumSource
  void keepsFramesOfSeveralSendersWhole(Kind kind) throws Exception {
    Ends ends = ends(kind);
    int senders = 8;
    int each = 50;
    List<Future<?>> sending = new ArrayList<>();
    for (int s = 0; s < senders; s++) {
      byte[] bytes = new byte[1 + s * 9000];
      sending.add(
          threads.submit(() -> {
            for (int i = 0; i < each; i++) {
              ends.left().send(new Message.Chunk(bytes));
            }
            return null;
          }));
    }
    long total = 0;
    for (int i = 0; i < senders * each; i++) {
      total += ((Message.Chunk) Objects.requireNonNull(ends.right().receive())).bytes().length;
    }
    assertThat(total).isEqualTo(each * (8L + 9000L * 28));
    for (Future<?> sender : sending) {
      sender.get();
    }
  }

  @ParameterizedTest
  @EnumSource
  void holdsASenderBackUntilTheOtherSideReads(Kind kind) throws Exception {
    Ends ends = ends(kind);
    int count = 200;
    CountDownLatch sent = new CountDownLatch(count);
    Future<?> sender =
        threads.submit(() -> {
          for (int i = 0; i < count; i++) {
            ends.left().send(new Message.Chunk(new byte[Limits.CHUNK_BYTES]));
            sent.countDown();
          }
          return null;
        });
    assertThat(sent.await(200, TimeUnit.MILLISECONDS)).isFalse();
    for (int i = 0; i < count; i++) {
      assertThat(ends.right().receive()).isInstanceOf(Message.Chunk.class);
    }
    sender.get(10, TimeUnit.SECONDS);
  }

  @ParameterizedTest
  @EnumSource
  void freesAThreadThatWaitsToReceiveWhenItIsClosed(Kind kind) throws Exception {
    Ends ends = ends(kind);
    CountDownLatch waiting = new CountDownLatch(1);
    Future<Boolean> freed =
        threads.submit(() -> {
          waiting.countDown();
          try {
            return ends.left().receive() == null;
          } catch (IOException _) {
            return true;
          }
        });
    waiting.await();
    ends.left().close();
    assertThat(freed.get(10, TimeUnit.SECONDS)).isTrue();
  }

  @ParameterizedTest
  @EnumSource
  void freesAThreadThatWaitsToSendWhenItIsClosed(Kind kind) throws Exception {
    Ends ends = ends(kind);
    CountDownLatch full = new CountDownLatch(3);
    Future<Boolean> freed =
        threads.submit(() -> {
          try {
            while (true) {
              ends.left().send(new Message.Chunk(new byte[Limits.CHUNK_BYTES]));
              full.countDown();
            }
          } catch (IOException _) {
            return true;
          }
        });
    full.await();
    ends.left().close();
    assertThat(freed.get(10, TimeUnit.SECONDS)).isTrue();
  }

  @ParameterizedTest
  @EnumSource
  void failsToSendOrReceiveOnceClosed(Kind kind) throws Exception {
    Ends ends = ends(kind);
    ends.left().close();
    ends.left().close();
    assertThatExceptionOfType(IOException.class)
        .isThrownBy(() -> ends.left().send(new Message.Ping()));
    assertThatExceptionOfType(IOException.class).isThrownBy(() -> ends.left().receive());
    assertThat(ends.right().receive()).isNull();
  }

  @ParameterizedTest
  @EnumSource
  void staysUsableAfterAMessageThatPassesALimit(Kind kind) throws Exception {
    Ends ends = ends(kind);
    assertThatIllegalArgumentException()
        .isThrownBy(() -> ends.left().send(new Message.Ack(Channel.STDOUT, -1)));
    ends.left().send(new Message.Ping());
    assertThat(ends.right().receive()).isEqualTo(new Message.Ping());
  }

  @Test
  void reportsGarbageFromTheOtherSide() throws Exception {
    SocketChannel[] sockets = sockets();
    try (SocketChannel raw = sockets[1];
        Connection connection = FramedConnection.over(sockets[0])) {
      raw.write(ByteBuffer.wrap(new byte[] {0, 0, 0, 2, 99, 99}));
      assertThatExceptionOfType(Wire.MalformedMessageException.class)
          .isThrownBy(connection::receive);
    }
  }
}
