package dev.foredeck.egress;

import static dev.foredeck.egress.RawClient.head;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.sun.net.httpserver.HttpServer;
import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsServer;
import dev.foredeck.core.egress.EgressGateway.Flow;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Arrays;
import javax.net.ssl.SSLContext;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.EnumSource;

/// Tunnels: TLS alone, to the server that the CONNECT named.
@Timeout(60)
@ParameterizedClass
@EnumSource(Way.class)
class TunnelTest {
  @Parameter Way way = Way.SOCKET;

  private static final InetSocketAddress ANY =
      new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);

  private static String connect(String authority) {
    return head("CONNECT " + authority + " HTTP/1.1", "Host: " + authority);
  }

  private GatewayFixture pinned(ScriptedServer server) throws IOException {
    return way.pinned(EgressLimits.DEFAULT, "site.test", server.port(), "10.9.8.7", server.port());
  }

  @Test
  void carriesARealClientToRealServers() throws Exception {
    SSLContext context = TestCertificate.context();
    HttpsServer secure = HttpsServer.create(ANY, 0);
    secure.setHttpsConfigurator(new HttpsConfigurator(context));
    HttpServer plain = HttpServer.create(ANY, 0);
    byte[] page = "the page".repeat(100_000).getBytes(java.nio.charset.StandardCharsets.US_ASCII);
    for (HttpServer server : new HttpServer[] {secure, plain}) {
      server.createContext(
          "/",
          exchange -> {
            exchange.getRequestBody().readAllBytes();
            exchange.sendResponseHeaders(
                200, exchange.getRequestURI().getPath().equals("/c") ? 0 : page.length);
            exchange.getResponseBody().write(page);
            exchange.close();
          });
      server.start();
    }
    try (GatewayFixture fixture =
            way.pinned(
                EgressLimits.DEFAULT,
                "site.test:443",
                secure.getAddress().getPort(),
                "site.test:80",
                plain.getAddress().getPort());
        Bridge bridge = new Bridge(fixture);
        HttpClient client =
            HttpClient.newBuilder()
                .sslContext(context)
                .proxy(ProxySelector.of(bridge.address()))
                .build()) {
      for (String url :
          new String[] {
            "https://site.test/a", "https://site.test/c", "http://site.test/b", "http://site.test/c"
          }) {
        HttpRequest get = HttpRequest.newBuilder(URI.create(url)).build();
        assertThat(client.send(get, BodyHandlers.ofByteArray()).body()).isEqualTo(page);
      }
      byte[] upload = new byte[3 << 20];
      HttpRequest post =
          HttpRequest.newBuilder(URI.create("http://site.test/b"))
              .POST(HttpRequest.BodyPublishers.ofByteArray(upload))
              .expectContinue(true)
              .build();
      assertThat(client.send(post, BodyHandlers.ofByteArray()).body()).isEqualTo(page);
      HttpRequest denied = HttpRequest.newBuilder(URI.create("https://evil.example/")).build();
      assertThatThrownBy(() -> client.send(denied, BodyHandlers.discarding()))
          .isInstanceOf(IOException.class)
          .hasMessageContaining("403");
      client.shutdownNow();
      boolean tunnelled = false;
      boolean refused = false;
      fixture.gateway.close();
      for (Flow flow : fixture.flows) {
        tunnelled |= flow.method().equals("CONNECT") && flow.bytesIn() > page.length;
        refused |= flow.host().equals("evil.example") && flow.effect().equals("deny");
      }
      assertThat(tunnelled).as("a flow of the tunnel").isTrue();
      assertThat(refused).as("a flow of the refusal").isTrue();
    } finally {
      secure.stop(0);
      plain.stop(0);
    }
  }

  @Test
  void endsATunnelWhoseTlsNamesAnotherServerBeforeAByteIsThrough() throws Exception {
    ScriptedServer[] self = new ScriptedServer[1];
    try (ScriptedServer server =
            new ScriptedServer(connection -> self[0].received.add("got " + connection.readAll()));
        GatewayFixture fixture = pinned(server)) {
      self[0] = server;
      for (String[] names : new String[][] {{"other.test"}, {}}) {
        try (RawClient client = fixture.connect()) {
          client.send(connect("site.test:443"));
          client.readUntil("\r\n\r\n");
          client.send(ClientHelloTest.hello(names));
          assertThat(client.readAll().chars()).startsWith(21, 3, 3, 0, 2, 2, 112);
        }
        assertThat(server.nextRequest()).isEqualTo("got ");
        Flow flow = fixture.nextFlow();
        assertThat(flow.effect()).isEqualTo("deny");
        assertThat(flow.rule()).isEqualTo("sni-mismatch");
        assertThat(flow.address()).startsWith("127.0.0.1");
        assertThat(flow.bytesOut()).isZero();
      }
      fixture.noMoreFlows();
    }
  }

  @Test
  void wantsNoServerNameWhereTheHostIsAnAddress() throws Exception {
    try (ScriptedServer server = new ScriptedServer(connection -> connection.send("served"));
        GatewayFixture fixture = pinned(server)) {
      try (RawClient client = fixture.connect()) {
        client.send(connect("10.9.8.7:443"));
        client.readUntil("\r\n\r\n");
        client.send(ClientHelloTest.hello());
        assertThat(client.readUntil("served")).isEqualTo("served");
      }
      assertThat(fixture.nextFlow().effect()).isEqualTo("allow");
      try (RawClient client = fixture.connect()) {
        client.send(connect("10.9.8.7:443"));
        client.readUntil("\r\n\r\n");
        client.send(ClientHelloTest.hello("site.test"));
        client.readAll();
      }
      assertThat(fixture.nextFlow().rule()).isEqualTo("sni-mismatch");
    }
  }

  @Test
  void carriesNothingButTls() throws Exception {
    try (ScriptedServer server = new ScriptedServer(RawClient::readAll);
        GatewayFixture fixture = pinned(server)) {
      for (String said : new String[] {"SSH-2.0-x\r\n", "GET / HTTP/1.1\r\n\r\n", "\0"}) {
        String answer = fixture.ask(connect("site.test:22") + said);
        assertThat(answer).contains("200 Connection established", "x-foredeck-denied-by: not-tls");
        Flow flow = fixture.nextFlow();
        assertThat(flow.rule()).isEqualTo("not-tls");
        assertThat(flow.bytesOut()).isZero();
      }
    }
  }

  @Test
  void readsAHelloThatComesInSmallPieces() throws Exception {
    byte[] hello = ClientHelloTest.hello("site.test");
    String expected = new String(hello, java.nio.charset.StandardCharsets.ISO_8859_1);
    ScriptedServer[] self = new ScriptedServer[1];
    try (ScriptedServer server =
            new ScriptedServer(connection -> {
              self[0].received.add(connection.readAll());
              connection.send("after your end");
            });
        GatewayFixture fixture = pinned(server);
        RawClient client = fixture.connect()) {
      self[0] = server;
      client.send(connect("site.test:443"));
      for (int at = 0; at < hello.length; at += 10) {
        client.send(Arrays.copyOfRange(hello, at, Math.min(hello.length, at + 10)));
      }
      client.send("more");
      client.channel.shutdownOutput();
      assertThat(server.nextRequest()).isEqualTo(expected + "more");
      assertThat(client.readAll()).endsWith("\r\n\r\nafter your end");
      Flow flow = fixture.nextFlow();
      assertThat(flow.bytesOut()).isEqualTo(hello.length + 4);
      assertThat(flow.bytesIn()).isEqualTo("after your end".length());
      assertThat(flow.effect()).isEqualTo("allow");
      fixture.noMoreFlows();
    }
  }
}
