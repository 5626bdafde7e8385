package dev.foredeck.egress;

import java.io.EOFException;
import java.io.IOException;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.util.concurrent.locks.ReentrantLock;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLEngineResult;
import javax.net.ssl.SSLEngineResult.HandshakeStatus;
import javax.net.ssl.SSLSession;

/// TLS 1.3 over a blocking socket. Not an `SSLSocket`, because that cannot be read to its end by
/// one thread and still be answered by another, nor be closed without waiting for a peer that does
/// not read.
///
/// Threading: one thread reads, any may write (one at a time, under the lock), any closes. What the
/// protocol itself has to say while it reads (a key update) is written by the reader.
final class TlsConnection implements ByteConnection {
  private static final ByteBuffer NOTHING = ByteBuffer.allocate(0);
  private static final int RECORDS_PER_WRITE = 2;

  private final SocketChannel channel;
  private final SSLEngine engine;
  private final ReentrantLock writing = new ReentrantLock();
  private final int recordBytes;
  private final int plainBytes;
  private final ByteBuffer outgoing;

  /// Read from the socket and not yet decrypted: between position and limit.
  private final ByteBuffer incoming;

  /// Decrypted and not yet taken: between position and limit.
  private final ByteBuffer decrypted;

  private boolean ended;
  private volatile boolean inputShut;

  /// @param channel connected and blocking; owned by the connection from here on
  /// @param engine either end's, for TLS 1.3 alone
  TlsConnection(SocketChannel channel, SSLEngine engine) {
    this.channel = channel;
    this.engine = engine;
    SSLSession session = engine.getSession();
    recordBytes = session.getPacketBufferSize();
    plainBytes = session.getApplicationBufferSize();
    outgoing = ByteBuffer.allocate(RECORDS_PER_WRITE * recordBytes);
    incoming = ByteBuffer.allocate(RECORDS_PER_WRITE * recordBytes).limit(0);
    decrypted = ByteBuffer.allocate(plainBytes).limit(0);
  }

  /// To be called once, before anything else. Whoever calls it sees to a time limit.
  void handshake() throws IOException {
    // A record that waits for the acknowledgement of the one before it waits 40 ms.
    channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
    engine.beginHandshake();
    while (true) {
      switch (engine.getHandshakeStatus()) {
        case NEED_TASK -> runTasks();
        case NEED_WRAP -> write(NOTHING);
        case NEED_UNWRAP, NEED_UNWRAP_AGAIN -> {
          if (unwrap(decrypted.clear()) < 0) {
            throw new EOFException("the connection ended within the TLS handshake");
          }
          decrypted.flip();
          if (decrypted.hasRemaining()) {
            return; // What follows the handshake came with its last message.
          }
        }
        case FINISHED, NOT_HANDSHAKING -> {
          return;
        }
      }
    }
  }

  @Override
  public int read(ByteBuffer into) throws IOException {
    if (decrypted.hasRemaining()) {
      return take(into);
    }
    if (ended || inputShut) {
      return -1;
    }
    try {
      if (into.remaining() >= plainBytes) {
        return unwrapSome(into);
      }
      decrypted.clear();
      int read;
      try {
        read = unwrapSome(decrypted);
      } finally {
        decrypted.flip();
      }
      return read < 0 ? -1 : take(into);
    } catch (IOException e) {
      if (inputShut) {
        return -1;
      }
      throw e;
    }
  }

  private int take(ByteBuffer into) {
    int length = Math.min(into.remaining(), decrypted.remaining());
    into.put(into.position(), decrypted, decrypted.position(), length);
    into.position(into.position() + length);
    decrypted.position(decrypted.position() + length);
    return length;
  }

  private int unwrapSome(ByteBuffer into) throws IOException {
    while (true) {
      int produced = unwrap(into);
      if (produced != 0) {
        return produced;
      }
    }
  }

  /// Decrypts one record, reading for it where it is not whole.
  ///
  /// @return bytes decrypted, which may be none; -1 at the end that the other side announced
  private int unwrap(ByteBuffer into) throws IOException {
    while (true) {
      SSLEngineResult result = engine.unwrap(incoming, into);
      switch (result.getStatus()) {
        case OK -> {
          answerProtocol(result.getHandshakeStatus());
          return result.bytesProduced();
        }
        case CLOSED -> {
          ended = true;
          return -1;
        }
        case BUFFER_UNDERFLOW -> fill();
        case BUFFER_OVERFLOW ->
            throw new IOException("a TLS record is larger than the protocol allows");
      }
    }
  }

  private void fill() throws IOException {
    incoming.compact();
    int read;
    try {
      read = channel.read(incoming);
    } finally {
      incoming.flip();
    }
    if (read < 0) {
      throw new EOFException("the connection ended without a TLS end");
    }
  }

  /// What a peer's message asks for once the connection stands; during the handshake its own loop
  /// does.
  private void answerProtocol(HandshakeStatus status) throws IOException {
    if (status == HandshakeStatus.NEED_TASK) {
      runTasks();
    } else if (status == HandshakeStatus.NEED_WRAP && !engine.isOutboundDone()) {
      write(NOTHING);
    }
  }

  private void runTasks() {
    Runnable task = engine.getDelegatedTask();
    while (task != null) {
      task.run();
      task = engine.getDelegatedTask();
    }
  }

  @Override
  public void write(ByteBuffer... parts) throws IOException {
    writing.lock();
    try {
      if (engine.isOutboundDone()) {
        throw new IOException("the output is shut");
      }
      outgoing.clear();
      SSLEngineResult result;
      do {
        result = engine.wrap(parts, outgoing);
        if (result.getStatus() == SSLEngineResult.Status.CLOSED) {
          break;
        }
      } while (remain(parts) && outgoing.remaining() >= recordBytes);
      flush();
      if (result.getStatus() == SSLEngineResult.Status.CLOSED) {
        throw new IOException("the output is shut");
      }
    } finally {
      writing.unlock();
    }
  }

  private static boolean remain(ByteBuffer[] parts) {
    for (ByteBuffer part : parts) {
      if (part.hasRemaining()) {
        return true;
      }
    }
    return false;
  }

  private void flush() throws IOException {
    outgoing.flip();
    while (outgoing.hasRemaining()) {
      int _ = channel.write(outgoing);
    }
  }

  /// For the application, not for TLS: the engine takes a stream that ends without its end for an
  /// attack, and would refuse to write.
  @Override
  public void shutdownInput() throws IOException {
    inputShut = true;
    SocketChannel _ = channel.shutdownInput();
  }

  @Override
  public void shutdownOutput() throws IOException {
    writing.lock();
    try {
      engine.closeOutbound();
      outgoing.clear();
      while (!engine.isOutboundDone() && outgoing.remaining() >= recordBytes) {
        SSLEngineResult _ = engine.wrap(NOTHING, outgoing);
      }
      flush();
      SocketChannel _ = channel.shutdownOutput();
    } finally {
      writing.unlock();
    }
  }

  @Override
  public boolean lingers() {
    return true;
  }

  @Override
  public boolean isOpen() {
    return channel.isOpen();
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
