package dev.foredeck.egress;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.Optional;
import java.util.Set;

/// Reads the server name from the first flight of a TLS connection (RFC 8446, section 4.1.2, and
/// RFC 6066), whole and strictly: a length that does not add up, a repeated extension or a second
/// name is not a ClientHello. Unknown (GREASE) values pass. With Encrypted Client Hello this is the
/// outer name.
sealed interface ClientHello {

  /// More bytes are needed.
  ///
  /// @param total bytes from the start of the connection, before looking again makes sense
  record Incomplete(int total) implements ClientHello {}

  /// Not TLS, or not well formed.
  record NotTls(String reason) implements ClientHello {}

  /// @param serverName as sent; empty where the client names no server
  record Parsed(Optional<String> serverName) implements ClientHello {}

  int RECORD_HEADER = 5;
  int HANDSHAKE_HEADER = 4;
  int MAX_RECORD = 1 << 14;

  /// A ClientHello in more records than this is a game with the reader.
  int MAX_RECORDS = 64;

  /// @param bytes all that came so far; its position is not moved
  /// @param maxBytes of records that this is willing to wait for
  static ClientHello parse(ByteBuffer bytes, int maxBytes) {
    ByteBuffer in = bytes.duplicate();
    int start = in.position();
    ByteBuffer message = ByteBuffer.allocate(maxBytes);
    int messageLength = -1;
    for (int records = 0; records < MAX_RECORDS; records++) {
      // Each octet is judged as soon as it is there, so that what is not TLS is told at once.
      ByteBuffer ahead = in.duplicate();
      if (ahead.hasRemaining() && ahead.get() != 22) {
        return new NotTls("the connection does not start with a TLS handshake record");
      }
      if (ahead.hasRemaining() && ahead.get() != 3) {
        return new NotTls("the record is of no TLS version");
      }
      if (in.remaining() < RECORD_HEADER) {
        return incomplete(in.position() - start + RECORD_HEADER, maxBytes);
      }
      int length = in.getShort(in.position() + 3) & 0xffff;
      if (length == 0 || length > MAX_RECORD) {
        return new NotTls("the record has an impossible length");
      }
      int recordEnd = in.position() - start + RECORD_HEADER + length;
      if (in.remaining() < RECORD_HEADER + length) {
        return incomplete(recordEnd, maxBytes);
      }
      if (recordEnd > maxBytes) {
        return new NotTls("the ClientHello is larger than " + maxBytes + " bytes");
      }
      in.position(in.position() + RECORD_HEADER);
      message.put(in.duplicate().limit(in.position() + length));
      in.position(in.position() + length);
      if (messageLength < 0 && message.position() >= HANDSHAKE_HEADER) {
        if (message.get(0) != 1) {
          return new NotTls("the first handshake message is not a ClientHello");
        }
        messageLength = message.getInt(0) & 0xffffff;
        if (messageLength > maxBytes) {
          return new NotTls("the ClientHello is larger than " + maxBytes + " bytes");
        }
      }
      if (messageLength >= 0 && message.position() >= HANDSHAKE_HEADER + messageLength) {
        if (message.position() > HANDSHAKE_HEADER + messageLength) {
          return new NotTls("something follows the ClientHello in its record");
        }
        return body(message.flip().position(HANDSHAKE_HEADER));
      }
    }
    return new NotTls("the ClientHello is in more than " + MAX_RECORDS + " records");
  }

  private static ClientHello incomplete(int total, int maxBytes) {
    if (total > maxBytes) {
      return new NotTls("the ClientHello is larger than " + maxBytes + " bytes");
    }
    return new Incomplete(total);
  }

  private static ClientHello body(ByteBuffer message) {
    Reader in = new Reader(message);
    try {
      in.require(in.number(1) == 3, "the ClientHello is of no TLS version");
      in.number(1);
      in.take(32);
      in.require(in.vector(1).remaining() <= 32, "the session id is too long");
      int suites = in.vector(2).remaining();
      in.require(suites >= 2 && suites % 2 == 0, "the list of cipher suites is malformed");
      in.require(in.vector(1).hasRemaining(), "the list of compression methods is empty");
      if (!in.hasRemaining()) {
        return new Parsed(Optional.empty());
      }
      Reader extensions = new Reader(in.vector(2));
      in.require(!in.hasRemaining(), "something follows the extensions");
      return new Parsed(serverName(extensions));
    } catch (Malformed e) {
      return new NotTls(e.reason);
    }
  }

  private static Optional<String> serverName(Reader extensions) throws Malformed {
    Set<Integer> seen = new HashSet<>();
    Optional<String> name = Optional.empty();
    while (extensions.hasRemaining()) {
      int type = extensions.number(2);
      Reader extension = new Reader(extensions.vector(2));
      extensions.require(seen.add(type), "an extension is there twice");
      if (type == 0) {
        name = Optional.of(hostName(extension));
      }
    }
    return name;
  }

  private static String hostName(Reader extension) throws Malformed {
    Reader list = new Reader(extension.vector(2));
    list.require(!extension.hasRemaining(), "something follows the server names");
    list.require(list.number(1) == 0, "the server name is not a host name");
    ByteBuffer name = list.vector(2);
    list.require(name.hasRemaining(), "the server name is empty");
    list.require(!list.hasRemaining(), "there is more than one server name");
    byte[] bytes = new byte[name.remaining()];
    name.get(bytes);
    return new String(bytes, StandardCharsets.ISO_8859_1);
  }

  /// Takes numbers and length-prefixed parts off a buffer, and never more than there is.
  final class Reader {
    private final ByteBuffer in;

    Reader(ByteBuffer in) {
      this.in = in;
    }

    boolean hasRemaining() {
      return in.hasRemaining();
    }

    void require(boolean holds, String reason) throws Malformed {
      if (!holds) {
        throw new Malformed(reason);
      }
    }

    int number(int octets) throws Malformed {
      ByteBuffer part = take(octets);
      int value = 0;
      while (part.hasRemaining()) {
        value = value << 8 | (part.get() & 0xff);
      }
      return value;
    }

    ByteBuffer vector(int lengthOctets) throws Malformed {
      return take(number(lengthOctets));
    }

    ByteBuffer take(int length) throws Malformed {
      require(length <= in.remaining(), "a length in the ClientHello does not add up");
      ByteBuffer part = in.slice(in.position(), length);
      in.position(in.position() + length);
      return part;
    }
  }

  /// The ClientHello ends here; the reason is fixed text.
  final class Malformed extends Exception {
    private static final long serialVersionUID = 1L;
    private final String reason;

    Malformed(String reason) {
      super(reason, null, false, false);
      this.reason = reason;
    }
  }
}
