package dev.foredeck.egress;

import dev.foredeck.core.Hashes;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.HexFormat;

/// The secret that control planes and gateways of one deployment share, and nobody else: who holds
/// it may say what sandboxes may reach. It is derived from the deployment's key, so that a gateway,
/// which hostile code talks to, does not hold the key that agents' tokens come from.
public final class LinkKey {
  private static final int BYTES = 32;

  private final byte[] bytes;

  private LinkKey(byte[] bytes) {
    this.bytes = bytes;
  }

  /// @param deploymentKey the secret of the deployment
  public static LinkKey of(byte[] deploymentKey) {
    return parse(Hashes.hmacSha256(deploymentKey, "foredeck egress gateway link"));
  }

  /// @param text as [#text] gave it
  /// @throws IllegalArgumentException for anything else; the message holds no secret
  public static LinkKey parse(String text) {
    try {
      byte[] bytes = HexFormat.of().parseHex(text.strip());
      if (bytes.length == BYTES) {
        return new LinkKey(bytes);
      }
    } catch (IllegalArgumentException _) {
      // Said below, without the text.
    }
    throw new IllegalArgumentException("a gateway's key is 64 hexadecimal digits");
  }

  /// 64 hexadecimal digits: a secret.
  public String text() {
    return HexFormat.of().formatHex(bytes);
  }

  /// What a control plane answers to a gateway's nonce.
  String proof(String gateway, String nonce, String controlPlane) {
    return Hashes.hmacSha256(
        bytes, "foredeck link 1\n" + gateway + "\n" + nonce + "\n" + controlPlane);
  }

  /// In constant time.
  boolean proves(String proof, String gateway, String nonce, String controlPlane) {
    return MessageDigest.isEqual(
        proof.getBytes(StandardCharsets.UTF_8),
        proof(gateway, nonce, controlPlane).getBytes(StandardCharsets.UTF_8));
  }

  @Override
  public String toString() {
    return "LinkKey";
  }
}
