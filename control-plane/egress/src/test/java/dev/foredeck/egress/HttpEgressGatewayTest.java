package dev.foredeck.egress;

import static dev.foredeck.egress.RawClient.head;
import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.egress.EgressGateway.Flow;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.EnumSource;

/// Plain requests through a real socket to a real server, and what is refused before one is
/// reached.
@Timeout(60)
@ParameterizedClass
@EnumSource(Way.class)
class HttpEgressGatewayTest {
  @Parameter Way way = Way.SOCKET;

  private static final String HELLO = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

  @Test
  void forwardsAnAbsoluteRequestAndRecordsItsFlow() throws Exception {
    try (ScriptedServer server = ScriptedServer.answering(HELLO);
        GatewayFixture fixture = way.pinned(EgressLimits.DEFAULT, "site.test", server.port())) {
      String credential =
          Base64.getEncoder()
              .encodeToString("call0000000000000001:x".getBytes(StandardCharsets.US_ASCII));
      String answer =
          fixture.ask(
              head(
                  "GET http://Site.TEST./a/b?secret=1 HTTP/1.1",
                  "Host: site.test",
                  "X-A: b",
                  "Proxy-Authorization: Basic " + credential,
                  "Proxy-Connection: keep-alive",
                  "Connection: x-hop",
                  "X-Hop: 1"));
      assertThat(answer)
          .isEqualTo(head("HTTP/1.1 200 OK", "Content-Length: 5", "Connection: close") + "hello");
      assertThat(server.nextRequest())
          .isEqualTo(
              head("GET /a/b?secret=1 HTTP/1.1", "Host: site.test", "X-A: b", "Connection: close"));
      Flow flow = fixture.nextFlow();
      assertThat(flow.claimedCall()).isEqualTo("call0000000000000001");
      assertThat(flow.host()).isEqualTo("site.test");
      assertThat(flow.port()).isEqualTo(80);
      assertThat(flow.address()).isEqualTo("127.0.0.1 port " + server.port());
      assertThat(flow.method()).isEqualTo("GET");
      assertThat(flow.path()).isEqualTo("/a/b");
      assertThat(flow.effect()).isEqualTo("allow");
      assertThat(flow.rule()).isEqualTo("test-hosts");
      assertThat(flow.bytesIn()).isEqualTo(HELLO.length());
      assertThat(flow.bytesOut()).isPositive();
      fixture.noMoreFlows();
    }
  }

  @Test
  void saysOfWhatItLetsThroughThatAPolicyOnlyRecordsIt() throws Exception {
    String request = head("GET http://shadow.test/ HTTP/1.1", "Host: shadow.test");
    try (ScriptedServer server = ScriptedServer.answering(HELLO);
        GatewayFixture fixture = way.pinned(EgressLimits.DEFAULT, "shadow.test", server.port())) {
      assertThat(fixture.ask(request)).startsWith("HTTP/1.1 200 OK");
      Flow flow = fixture.nextFlow();
      assertThat(flow.effect()).isEqualTo("allow");
      assertThat(flow.rule()).isEqualTo("default");
      assertThat(flow.shadow()).isTrue();
    }
    try (GatewayFixture fixture = way.pinned(EgressLimits.DEFAULT)) {
      fixture.ask(request);
      Flow refused = fixture.nextFlow();
      assertThat(refused.effect()).isEqualTo("deny");
      assertThat(refused.shadow()).as("what the gateway itself refuses").isFalse();
    }
  }

  @Test
  void deniesAnUnlistedHostAndSaysWhy() throws Exception {
    try (GatewayFixture fixture = way.pinned(EgressLimits.DEFAULT)) {
      String answer = fixture.ask(head("GET http://evil.example/x HTTP/1.1", "Host: evil.example"));
      assertThat(answer)
          .startsWith("HTTP/1.1 403 Denied by Foredeck (default): no rule allows evil.example\r\n")
          .contains("\r\nx-foredeck-denied-by: default\r\n", "GET evil.example:80/x", "to get it");
      Flow flow = fixture.nextFlow();
      assertThat(flow.effect()).isEqualTo("deny");
      assertThat(flow.rule()).isEqualTo("default");
      assertThat(flow.address()).isEmpty();
      fixture.noMoreFlows();
    }
  }

  @Test
  void refusesANameOfWhichOneAddressIsPrivate() throws Exception {
    try (GatewayFixture fixture = way.pinned(EgressLimits.DEFAULT)) {
      fixture.names.put(
          "rebind.test",
          List.of(InetAddress.ofLiteral("93.184.216.34"), InetAddress.ofLiteral("10.0.0.1")));
      String answer =
          fixture.ask(head("CONNECT rebind.test:443 HTTP/1.1", "Host: rebind.test:443"));
      assertThat(answer).startsWith("HTTP/1.1 403 Denied by Foredeck (private-address)");
      assertThat(fixture.nextFlow().rule()).isEqualTo("private-address");
    }
  }
}
