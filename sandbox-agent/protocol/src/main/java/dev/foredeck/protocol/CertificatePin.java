package dev.foredeck.protocol;

import java.io.IOException;
import java.net.Socket;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import java.util.HexFormat;
import java.util.regex.Pattern;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509ExtendedTrustManager;

/// The sandbox's end of TLS: trusts the one certificate whose SHA-256 this is, and nothing else.
/// Neither names nor dates count, so that no clock and no name of a sandbox can be used against it.
public final class CertificatePin {
  private static final Pattern SHAPE = Pattern.compile("[0-9a-f]{64}");
  private static final String[] PROTOCOLS = {"TLSv1.3"};

  /// Where sessions are kept under: one pin, one peer. A second connection resumes the first one's.
  private static final String PEER = "foredeck";

  private static final int PEER_PORT = 1;

  private final SSLContext context;

  private CertificatePin(SSLContext context) {
    this.context = context;
  }

  /// @param sha256 64 hexadecimal digits, lower case
  /// @throws IllegalArgumentException for anything else
  public static CertificatePin of(String sha256) {
    if (!SHAPE.matcher(sha256).matches()) {
      throw new IllegalArgumentException("a certificate's pin is 64 hexadecimal digits");
    }
    try {
      SSLContext context = SSLContext.getInstance("TLS");
      context.init(
          null, new TrustManager[] {new OneCertificate(HexFormat.of().parseHex(sha256))}, null);
      return new CertificatePin(context);
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e);
    }
  }

  /// The sandbox's end of TLS on a connection, whoever of the two dialled it. The handshake comes
  /// with the first use; closing it closes `connected`.
  public SSLSocket over(Socket connected) throws IOException {
    SSLSocket tls =
        (SSLSocket) context.getSocketFactory().createSocket(connected, PEER, PEER_PORT, true);
    tls.setUseClientMode(true);
    tls.setEnabledProtocols(PROTOCOLS);
    return tls;
  }

  /// The pinned end of TLS for a connection whose bytes the caller moves.
  public SSLEngine engine() {
    SSLEngine engine = context.createSSLEngine(PEER, PEER_PORT);
    engine.setUseClientMode(true);
    engine.setEnabledProtocols(PROTOCOLS);
    return engine;
  }

  /// Extended, so that the JDK adds no checks of its own.
  private static final class OneCertificate extends X509ExtendedTrustManager {
    private final byte[] sha256;

    OneCertificate(byte[] sha256) {
      this.sha256 = sha256;
    }

    private void check(X509Certificate[] chain) throws CertificateException {
      try {
        byte[] presented = MessageDigest.getInstance("SHA-256").digest(chain[0].getEncoded());
        if (!MessageDigest.isEqual(sha256, presented)) {
          throw new CertificateException("not the deployment's certificate");
        }
      } catch (NoSuchAlgorithmException e) {
        throw new CertificateException(e);
      }
    }

    @Override
    public void checkServerTrusted(X509Certificate[] chain, String type)
        throws CertificateException {
      check(chain);
    }

    @Override
    public void checkServerTrusted(X509Certificate[] chain, String type, Socket socket)
        throws CertificateException {
      check(chain);
    }

    @Override
    public void checkServerTrusted(X509Certificate[] chain, String type, SSLEngine engine)
        throws CertificateException {
      check(chain);
    }

    @Override
    public void checkClientTrusted(X509Certificate[] chain, String type)
        throws CertificateException {
      throw new CertificateException("a sandbox serves nobody");
    }

    @Override
    public void checkClientTrusted(X509Certificate[] chain, String type, Socket socket)
        throws CertificateException {
      throw new CertificateException("a sandbox serves nobody");
    }

    @Override
    public void checkClientTrusted(X509Certificate[] chain, String type, SSLEngine engine)
        throws CertificateException {
      throw new CertificateException("a sandbox serves nobody");
    }

    @Override
    public X509Certificate[] getAcceptedIssuers() {
      return new X509Certificate[0];
    }
  }
}
