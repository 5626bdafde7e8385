package dev.foredeck.core;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.SecureRandom;
import java.security.Signature;
import java.security.cert.CertificateEncodingException;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.InvalidKeySpecException;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.HexFormat;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLSocket;

/// The deployment's own certificate: how agents and their bridges, which reach the control plane
/// over a network, know that it is the one. They hold no certificate and no key, only the [#pin] of
/// this one, and check nothing else of it: neither a name nor a date.
///
/// Whoever dials, the deployment is TLS's server and the sandbox its client.
public final class DeploymentTls {
  private static final String[] PROTOCOLS = {"TLSv1.3"};
  private static final String CERTIFICATE = "CERTIFICATE";
  private static final String PRIVATE_KEY = "PRIVATE KEY";

  private final X509Certificate certificate;
  private final PrivateKey key;
  private final SSLContext context;

  private DeploymentTls(X509Certificate certificate, PrivateKey key) {
    this.certificate = certificate;
    this.key = key;
    this.context = context(certificate, key);
  }

  /// A new key (EC, P-256) and a certificate that it signs itself, valid as long as it is pinned.
  public static DeploymentTls generate(SecureRandom random) {
    try {
      KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
      generator.initialize(new ECGenParameterSpec("secp256r1"), random);
      KeyPair pair = generator.generateKeyPair();
      return new DeploymentTls(SelfSigned.certificate(pair, random), pair.getPrivate());
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e);
    }
  }

  /// @param pem a certificate and its private key (PKCS#8, EC or RSA), as [#toPem] writes them and
  ///   as the two values of a Kubernetes TLS secret are when joined
  /// @throws IllegalArgumentException when there is no such pair in it; the message holds no secret
  public static DeploymentTls parse(String pem) {
    byte[] der = block(pem, CERTIFICATE);
    PKCS8EncodedKeySpec spec = new PKCS8EncodedKeySpec(block(pem, PRIVATE_KEY));
    try {
      X509Certificate certificate = certificate(der);
      String algorithm = certificate.getPublicKey().getAlgorithm();
      return new DeploymentTls(
          certificate, KeyFactory.getInstance(algorithm).generatePrivate(spec));
    } catch (CertificateException e) {
      throw new IllegalArgumentException("the certificate cannot be read", e);
    } catch (InvalidKeySpecException _) {
      throw new IllegalArgumentException("the private key cannot be read, or is of another kind");
    } catch (GeneralSecurityException e) {
      throw new IllegalArgumentException("the certificate's kind of key cannot be used", e);
    }
  }

  /// Certificate and private key: a secret.
  public String toPem() {
    try {
      return pem(CERTIFICATE, certificate.getEncoded()) + pem(PRIVATE_KEY, key.getEncoded());
    } catch (CertificateEncodingException e) {
      throw new IllegalStateException(e);
    }
  }

  /// SHA-256 of the certificate, hexadecimal: what a sandbox is told to look for. Public.
  public String pin() {
    try {
      return Hashes.sha256(certificate.getEncoded());
    } catch (CertificateEncodingException e) {
      throw new IllegalStateException(e);
    }
  }

  /// The deployment's end of TLS on a connection, whoever of the two dialled it. The handshake
  /// comes with the first use; closing it closes `connected`.
  public SSLSocket over(Socket connected) throws IOException {
    SSLSocket tls =
        (SSLSocket)
            context
                .getSocketFactory()
                .createSocket(
                    connected,
                    connected.getInetAddress().getHostAddress(),
                    connected.getPort(),
                    true);
    tls.setUseClientMode(false);
    tls.setEnabledProtocols(PROTOCOLS);
    return tls;
  }

  /// The deployment's end of TLS for a connection whose bytes the caller moves.
  public SSLEngine engine() {
    SSLEngine engine = context.createSSLEngine();
    engine.setUseClientMode(false);
    engine.setEnabledProtocols(PROTOCOLS);
    return engine;
  }

  private static SSLContext context(X509Certificate certificate, PrivateKey key) {
    char[] inMemory = new char[0];
    try {
      KeyStore store = KeyStore.getInstance("PKCS12");
      store.load(null, null);
      store.setKeyEntry("deployment", key, inMemory, new X509Certificate[] {certificate});
      KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
      keys.init(store, inMemory);
      SSLContext context = SSLContext.getInstance("TLS");
      context.init(keys.getKeyManagers(), null, null);
      return context;
    } catch (GeneralSecurityException | IOException e) {
      throw new IllegalStateException(e);
    }
  }

  private static X509Certificate certificate(byte[] der) throws CertificateException {
    return (X509Certificate)
        CertificateFactory.getInstance("X.509").generateCertificate(new ByteArrayInputStream(der));
  }

  private static String pem(String kind, byte[] der) {
    byte[] newline = {'\n'};
    return "-----BEGIN "
        + kind
        + "-----\n"
        + Base64.getMimeEncoder(64, newline).encodeToString(der)
        + "\n-----END "
        + kind
        + "-----\n";
  }

  private static byte[] block(String pem, String kind) {
    String begin = "-----BEGIN " + kind + "-----";
    int from = pem.indexOf(begin);
    int to = pem.indexOf("-----END " + kind + "-----", Math.max(0, from));
    if (from < 0 || to < 0) {
      throw new IllegalArgumentException("there is no block '" + begin + "'");
    }
    try {
      return Base64.getMimeDecoder().decode(pem.substring(from + begin.length(), to));
    } catch (IllegalArgumentException _) {
      // The decoder's own message may quote what it read.
      throw new IllegalArgumentException("the block '" + begin + "' is not base64");
    }
  }

  @Override
  public String toString() {
    return "DeploymentTls[" + pin() + "]";
  }

  /// The smallest X.509 certificate: the JDK reads them and has no public way to write one.
  private static final class SelfSigned {
    private static final int INTEGER = 0x02;
    private static final int BIT_STRING = 0x03;
    private static final int UTF8_STRING = 0x0c;
    private static final int UTC_TIME = 0x17;
    private static final int GENERALIZED_TIME = 0x18;
    private static final int SEQUENCE = 0x30;
    private static final int SET = 0x31;
    private static final int VERSION = 0xa0;
    private static final int SERIAL_BYTES = 16;

    /// Object identifiers, encoded: ecdsa-with-SHA256 (1.2.840.10045.4.3.2), commonName (2.5.4.3).
    private static final byte[] ECDSA_SHA256 = HexFormat.of().parseHex("06082a8648ce3d040302");

    private static final byte[] COMMON_NAME = HexFormat.of().parseHex("0603550403");

    static X509Certificate certificate(KeyPair pair, SecureRandom random)
        throws GeneralSecurityException {
      byte[] serial = new byte[SERIAL_BYTES];
      random.nextBytes(serial);
      // Positive, and without a leading zero byte.
      serial[0] = (byte) ((serial[0] & 0x3f) | 0x40);
      byte[] algorithm = der(SEQUENCE, ECDSA_SHA256);
      byte[] name =
          der(SEQUENCE, der(SET, der(SEQUENCE, COMMON_NAME, der(UTF8_STRING, ascii("foredeck")))));
      // The end is RFC 5280's "no well-defined expiration": the pin is what is checked.
      byte[] validity =
          der(
              SEQUENCE,
              der(UTC_TIME, ascii("250101000000Z")),
              der(GENERALIZED_TIME, ascii("99991231235959Z")));
      byte[] signed =
          der(
              SEQUENCE,
              der(VERSION, der(INTEGER, new byte[] {2})),
              der(INTEGER, serial),
              algorithm,
              name,
              validity,
              name,
              pair.getPublic().getEncoded());
      Signature signature = Signature.getInstance("SHA256withECDSA");
      signature.initSign(pair.getPrivate(), random);
      signature.update(signed);
      byte[] noUnusedBits = {0};
      return DeploymentTls.certificate(
          der(SEQUENCE, signed, algorithm, der(BIT_STRING, noUnusedBits, signature.sign())));
    }

    private static byte[] ascii(String text) {
      return text.getBytes(StandardCharsets.US_ASCII);
    }

    /// Tag, length, and what the value is made of.
    private static byte[] der(int tag, byte[]... parts) {
      ByteArrayOutputStream value = new ByteArrayOutputStream();
      for (byte[] part : parts) {
        value.writeBytes(part);
      }
      ByteArrayOutputStream encoded = new ByteArrayOutputStream();
      encoded.write(tag);
      int length = value.size();
      if (length >= 0x80) {
        byte[] digits =
            HexFormat.of()
                .parseHex(length > 0xff ? "%04x".formatted(length) : "%02x".formatted(length));
        encoded.write(0x80 | digits.length);
        encoded.writeBytes(digits);
      } else {
        encoded.write(length);
      }
      encoded.writeBytes(value.toByteArray());
      return encoded.toByteArray();
    }
  }
}
