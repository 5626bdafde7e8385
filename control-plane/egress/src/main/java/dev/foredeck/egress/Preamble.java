package dev.foredeck.egress;

import dev.foredeck.core.Hashes;
import dev.foredeck.core.Id;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/// What a sandbox's bridge says first: `FOREDECK/1 <sandbox id> <credential>\n`, ASCII. There is no
/// answer; what follows is for the proxy.
///
/// @param credentialSha256 of the credential, which is not kept
record Preamble(Id sandbox, byte[] credentialSha256) {
  static final int MAX_BYTES = 160;

  private static final Pattern SHAPE =
      Pattern.compile("FOREDECK/1 ([a-z][a-z0-9]{15,40}) ([!-~]{16,100})");

  /// Takes the line and not a byte of what follows it.
  ///
  /// @throws IOException where it is not one; the message holds nothing of it
  static Preamble read(ByteConnection connection) throws IOException {
    byte[] line = new byte[MAX_BYTES];
    ByteBuffer one = ByteBuffer.allocate(1);
    for (int length = 0; length < MAX_BYTES; length++) {
      one.clear();
      if (connection.read(one) < 0) {
        throw new EOFException("the connection ended within the preamble");
      }
      line[length] = one.get(0);
      if (line[length] == '\n') {
        return parse(new String(line, 0, length, StandardCharsets.ISO_8859_1));
      }
    }
    throw new IOException("the preamble is longer than " + MAX_BYTES + " bytes");
  }

  private static Preamble parse(String line) throws IOException {
    Matcher matcher = SHAPE.matcher(line);
    if (!matcher.matches()) {
      throw new IOException("the preamble is malformed, or of another version");
    }
    return new Preamble(
        new Id(matcher.group(1)),
        Hashes.sha256Bytes(matcher.group(2).getBytes(StandardCharsets.ISO_8859_1)));
  }
}
