package dev.foredeck.egress;

import static dev.foredeck.egress.RawClient.head;
import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.egress.EgressGateway.Flow;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.channels.SocketChannel;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/// How bodies and answers cross the gateway, and what of a server's answer is not passed on.
@Timeout(60)
@ParameterizedClass
@EnumSource(Way.class)
class ExchangeTest {
  @Parameter Way way = Way.SOCKET;

  private static final String GET = head("GET http://s.test/ HTTP/1.1", "Host: s.test");

  private GatewayFixture pinned(ScriptedServer server) throws IOException {
    return way.pinned(EgressLimits.DEFAULT, "s.test", server.port());
  }

  @Test
  void passesABodyByItsLength() throws Exception {
    ScriptedServer.Script script =
        connection -> {
          connection.readUntil("\r\n\r\n");
          connection.readUntil("12345");
          connection.send(head("HTTP/1.1 201 Created", "Content-Length: 0"));
        };
    try (ScriptedServer server = new ScriptedServer(script);
        GatewayFixture fixture = pinned(server)) {
      String request = head("POST http://s.test/ HTTP/1.1", "Host: s.test", "Content-Length: 5");
      // What is behind the body is no second request.
      String answer = fixture.ask(request + "12345" + GET);
      assertThat(answer).startsWith("HTTP/1.1 201 Created\r\n");
      Flow flow = fixture.nextFlow();
      assertThat(flow.effect()).isEqualTo("allow");
      assertThat(flow.method()).isEqualTo("POST");
      fixture.noMoreFlows();
    }
  }

  @Test
  void framesChunksAnewInBothDirections() throws Exception {
    ScriptedServer[] self = new ScriptedServer[1];
    ScriptedServer.Script script =
        connection -> {
          connection.readUntil("\r\n\r\n");
          self[0].received.add(connection.readUntil("0\r\n\r\n"));
          connection.send(head("HTTP/1.1 200 OK", "Transfer-Encoding: Chunked"));
          connection.send("A;x=y\r\n0123456789\r\n3\r\nabc\r\n00\r\nTrailer: 1\r\n\r\n");
        };
    try (ScriptedServer server = new ScriptedServer(script);
        GatewayFixture fixture = pinned(server)) {
      self[0] = server;
      String request =
          head("PUT http://s.test/ HTTP/1.1", "Host: s.test", "Transfer-Encoding: chunked");
      String answer = fixture.ask(request + "5;ext=\"1\"\r\nhello\r\n0\r\nTrailer: x\r\n\r\n");
      assertThat(server.nextRequest()).isEqualTo("5\r\nhello\r\n0\r\n\r\n");
      String answerHead =
          head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Connection: close");
      assertThat(answer).isEqualTo(answerHead + "a\r\n0123456789\r\n3\r\nabc\r\n0\r\n\r\n");
    }
  }

  @Test
  void takesTheChunksOutForAnHttp10Client() throws Exception {
    String chunked = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "2\r\nab\r\n0\r\n\r\n";
    try (ScriptedServer server = ScriptedServer.answering(chunked);
        GatewayFixture fixture = pinned(server)) {
      assertThat(fixture.ask(head("GET http://s.test/ HTTP/1.0")))
          .isEqualTo(head("HTTP/1.1 200 OK", "Connection: close") + "ab");
    }
  }

  @Test
  void chunksABodyThatEndsWithItsConnection() throws Exception {
    try (ScriptedServer server = ScriptedServer.answering(head("HTTP/1.0 200 OK") + "to the end");
        GatewayFixture fixture = pinned(server)) {
      assertThat(fixture.ask(GET)).endsWith("\r\n\r\na\r\nto the end\r\n0\r\n\r\n");
    }
  }

  @Test
  void letsTheServerAskForTheBody() throws Exception {
    ScriptedServer.Script script =
        connection -> {
          connection.readUntil("\r\n\r\n");
          connection.send(head("HTTP/1.1 103 Early Hints", "Link: </a>"));
          connection.send(head("HTTP/1.1 100 Continue"));
          connection.readUntil("body");
          connection.send(head("HTTP/1.1 200 OK", "Content-Length: 0"));
        };
    try (ScriptedServer server = new ScriptedServer(script);
        GatewayFixture fixture = pinned(server);
        RawClient client = fixture.connect()) {
      client.send(
          head(
              "POST http://s.test/ HTTP/1.1",
              "Host: s.test",
              "Content-Length: 4",
              "Expect: 100-continue"));
      assertThat(client.readUntil("100 Continue\r\n\r\n"))
          .contains("103 Early Hints\r\nLink: </a>");
      client.send("body");
      assertThat(client.readAll()).startsWith("HTTP/1.1 200 OK");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"204 No Content", "304 Not Modified"})
  void expectsNoBodyWhereThereIsNone(String status) throws Exception {
    ScriptedServer.Script script =
        connection -> {
          connection.readUntil("\r\n\r\n");
          connection.send(head("HTTP/1.1 " + status, "Content-Length: 5"));
          connection.readAll();
        };
    try (ScriptedServer server = new ScriptedServer(script);
        GatewayFixture fixture = pinned(server)) {
      assertThat(fixture.ask(GET)).startsWith("HTTP/1.1 " + status).endsWith("\r\n\r\n");
    }
  }

  @Test
  void keepsTheLengthInTheAnswerToHead() throws Exception {
    try (ScriptedServer server =
            ScriptedServer.answering(head("HTTP/1.1 200 OK", "Content-Length: 5"));
        GatewayFixture fixture = pinned(server)) {
      assertThat(fixture.ask(head("HEAD http://s.test/ HTTP/1.1", "Host: s.test")))
          .isEqualTo(head("HTTP/1.1 200 OK", "Content-Length: 5", "Connection: close"));
    }
  }

  @Test
  void passesAnAnswerThatComesBeforeTheBodyIsRead() throws Exception {
    ScriptedServer.Script script =
        connection -> {
          connection.readUntil("\r\n\r\n");
          connection.send(head("HTTP/1.1 413 Too Large", "Content-Length: 2") + "no");
        };
    try (ScriptedServer server = new ScriptedServer(script);
        GatewayFixture fixture = pinned(server);
        RawClient client = fixture.connect()) {
      client.send(head("POST http://s.test/ HTTP/1.1", "Host: s.test", "Content-Length: 100000"));
      client.send("x".repeat(10_000));
      assertThat(client.readUntil("\r\n\r\nno")).startsWith("HTTP/1.1 413 Too Large");
      assertThat(fixture.nextFlow().effect()).isEqualTo("allow");
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "SSH-2.0-server\r\n\r\n",
        "HTTP/1.1 200 O",
        ""
      })
  void answers502ToWhatIsNotHttp(String answer) throws Exception {
    try (ScriptedServer server = ScriptedServer.answering(answer);
        GatewayFixture fixture = pinned(server)) {
      assertThat(fixture.ask(GET)).startsWith("HTTP/1.1 502 Foredeck: ");
      Flow flow = fixture.nextFlow();
      assertThat(flow.effect()).isEqualTo("allow");
      assertThat(flow.rule()).isEqualTo("test-hosts");
      fixture.noMoreFlows();
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"5\r\nab", "z\r\nab", "2\r\nabc\r\n0\r\n\r\n", "2\nab\r\n0\r\n\r\n", "-1\r\n"})
  void neverEndsAnAnswerThatTheServerDidNotEnd(String body) throws Exception {
    String answer = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + body;
    try (ScriptedServer server = ScriptedServer.answering(answer);
        GatewayFixture fixture = pinned(server)) {
      assertThat(fixture.ask(GET)).startsWith("HTTP/1.1 200 OK").doesNotEndWith("0\r\n\r\n");
      assertThat(fixture.nextFlow().reason()).doesNotContain("tests may");
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"g\r\n", "5\r\nhelloX\r\n", "5 \r\nhello\r\n", "\r\n", "5\nhello\r\n", "0x5\r\n"})
  void refusesMalformedChunks(String body) throws Exception {
    ScriptedServer.Script script = RawClient::readAll;
    try (ScriptedServer server = new ScriptedServer(script);
        GatewayFixture fixture = pinned(server);
        RawClient client = fixture.connect()) {
      client.send(
          head("PUT http://s.test/ HTTP/1.1", "Host: s.test", "Transfer-Encoding: chunked"));
      client.send(body);
      assertThat(client.readUntil("\r\n")).startsWith("HTTP/1.1 400 ");
      assertThat(fixture.nextFlow().rule()).isEqualTo("bad-request");
    }
  }

  @Test
  void refusesARequestThatEndsWithinItsBody() throws Exception {
    try (ScriptedServer server = new ScriptedServer(RawClient::readAll);
        GatewayFixture fixture = pinned(server);
        RawClient client = fixture.connect()) {
      client.send(head("PUT http://s.test/ HTTP/1.1", "Host: s.test", "Content-Length: 9") + "x");
      client.channel.shutdownOutput();
      assertThat(client.readAll()).startsWith("HTTP/1.1 400 ");
      assertThat(fixture.nextFlow().reason()).isEqualTo("the request ended within its body");
    }
  }

  @Test
  void refusesUpgradesButForTheOneThatMayBeIgnored() throws Exception {
    try (ScriptedServer server =
            ScriptedServer.answering(head("HTTP/1.1 200 OK", "Content-Length: 0"));
        GatewayFixture fixture = pinned(server)) {
      String line = "GET http://s.test/ HTTP/1.1";
      assertThat(fixture.ask(head(line, "Host: s.test", "Upgrade: websocket")))
          .startsWith("HTTP/1.1 400 ");
      assertThat(
              fixture.ask(
                  head(
                      line,
                      "Host: s.test",
                      "Connection: Upgrade, HTTP2-Settings",
                      "Upgrade: h2c",
                      "HTTP2-Settings: AAA")))
          .startsWith("HTTP/1.1 200 ");
      assertThat(server.nextRequest()).doesNotContainIgnoringCase("upgrade", "http2");
    }
  }

  @Test
  void saysWhenNobodyListens() throws Exception {
    try (SocketChannel bound = SocketChannel.open()) {
      bound.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
      int port = bound.socket().getLocalPort();
      saysThatNobodyListens(port);
    }
  }

  private void saysThatNobodyListens(int port) throws Exception {
    try (GatewayFixture fixture = way.pinned(EgressLimits.DEFAULT, "s.test", port)) {
      assertThat(fixture.ask(GET))
          .startsWith("HTTP/1.1 502 Foredeck: s.test:80 could not be reached: Connection refused");
      Flow flow = fixture.nextFlow();
      assertThat(flow.effect()).isEqualTo("allow");
      assertThat(flow.address()).isEmpty();
    }
  }

  @Test
  void recordsWhatIsNoRequestAndNothingForNoBytes() throws Exception {
    try (GatewayFixture fixture = way.pinned(EgressLimits.DEFAULT)) {
      fixture.connect().close();
      assertThat(fixture.ask("GET / HTTP/1.1\r\nHost: a\n\n")).startsWith("HTTP/1.1 400 ");
      assertThat(fixture.ask("\0")).startsWith("HTTP/1.1 400 ");
      assertThat(fixture.nextFlow().rule()).isEqualTo("bad-request");
      assertThat(fixture.nextFlow().rule()).isEqualTo("bad-request");
      fixture.noMoreFlows();
    }
  }

  @Test
  void movesManyBytesUnchanged() throws Exception {
    int size = 8 << 20;
    CountDownLatch done = new CountDownLatch(1);
    ScriptedServer.Script script =
        connection -> {
          connection.readUntil("\r\n\r\n");
          connection.send(head("HTTP/1.1 200 OK", "Content-Length: " + size) + "z".repeat(size));
          done.countDown();
        };
    try (ScriptedServer server = new ScriptedServer(script);
        GatewayFixture fixture = pinned(server)) {
      String answer = fixture.ask(GET);
      assertThat(answer.substring(answer.indexOf("\r\n\r\n") + 4).equals("z".repeat(size)))
          .isTrue();
      assertThat(fixture.nextFlow().bytesIn()).isGreaterThan(size);
      done.await();
    }
  }
}
