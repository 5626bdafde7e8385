package dev.foredeck.egress;

import static dev.foredeck.egress.RawClient.head;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.core.read.ListAppender;
import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.protocol.CertificatePin;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.LinkedBlockingQueue;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.slf4j.LoggerFactory;

/// Who comes to a gateway's two ports without being who may, and what it costs.
@Timeout(60)
class GatewayServerTest {
  private static final Id SANDBOX = GatewayFixture.SANDBOX;
  private static final String GET = head("GET http://no.example/ HTTP/1.1", "Host: no.example");

  /// Small places and short waits.
  static final LinkLimits FEW =
      new LinkLimits(
          8, 4, 3_000, 300, 2, 3, 50_000, 15_000, 5_000, 60_000, 86_400_000L, 10_000, 1_000, 200);

  private final LinkedBlockingQueue<Flow> flows = new LinkedBlockingQueue<>();
  private final ListAppender<ILoggingEvent> logged = new ListAppender<>();
  private final GatewayServer server;
  private final RemoteEgressGateway plane;

  GatewayServerTest() throws IOException {
    server = server(FEW);
    plane = GatewayFixture.remote(server.ports().controlPlanes(), LinkLimits.DEFAULT);
  }

  static GatewayServer server(LinkLimits limits) throws IOException {
    return server(limits, 0, 0, EgressLimits.DEFAULT);
  }

  static GatewayServer server(
      LinkLimits limits, int bridgePort, int controlPort, EgressLimits egressLimits)
      throws IOException {
    return new GatewayServer(
        new GatewayServer.Ports(
            GatewayFixture.loopback(bridgePort), GatewayFixture.loopback(controlPort)),
        GatewayFixture.TLS,
        GatewayFixture.KEY,
        egressLimits,
        limits,
        Pins.NONE,
        name -> List.of(),
        Set::of,
        System::nanoTime,
        new SecureRandom());
  }

  /// What a test waits for.
  interface Condition {
    boolean holds() throws Exception;
  }

  static void await(String what, Condition condition) throws Exception {
    long until = System.nanoTime() + 20_000_000_000L;
    while (!condition.holds()) {
      if (System.nanoTime() - until > 0) {
        throw new AssertionError("not within 20 s: " + what);
      }
      Thread.sleep(5);
    }
  }

  @BeforeEach
  void open() throws Exception {
    Logger root = (Logger) LoggerFactory.getLogger("dev.foredeck.egress");
    root.setLevel(Level.TRACE);
    root.setAdditive(false);
    logged.start();
    root.addAppender(logged);
    plane.open(SANDBOX, GatewayFixture.credential(), GatewayFixture.RULES, flows::add);
  }

  @AfterEach
  void close() {
    plane.close();
    server.close();
    Logger root = (Logger) LoggerFactory.getLogger("dev.foredeck.egress");
    root.detachAppender(logged);
    root.setLevel(null);
    root.setAdditive(true);
    assertThat(List.copyOf(logged.list))
        .isNotEmpty()
        .extracting(ILoggingEvent::getFormattedMessage)
        .noneMatch(line -> line.contains(GatewayFixture.CREDENTIAL))
        .noneMatch(line -> line.contains(GatewayFixture.KEY.text()));
  }

  private InetSocketAddress bridges() {
    return server.ports().sandboxes();
  }

  private InetSocketAddress control() {
    return server.ports().controlPlanes();
  }

  /// Tries again where those before still have all places.
  private static TlsConnection dial(InetSocketAddress port) throws IOException {
    long until = System.nanoTime() + 20_000_000_000L;
    while (true) {
      TlsConnection connection =
          new TlsConnection(SocketChannel.open(port), GatewayFixture.PIN.engine());
      try {
        connection.handshake();
        return connection;
      } catch (IOException e) {
        connection.close();
        if (System.nanoTime() - until > 0) {
          throw e;
        }
      }
    }
  }

  /// What a bridge hears that says this first.
  private String hears(String said) throws IOException {
    try (RawClient client = new RawClient(dial(bridges()))) {
      client.send(said);
      return client.readAll();
    } catch (IOException _) {
      return ""; // Cut off while it spoke.
    }
  }

  private void servesItsOwn() throws Exception {
    await(
        "a place at the bridge door",
        () -> {
          return hears("FOREDECK/1 " + SANDBOX + " " + GatewayFixture.CREDENTIAL + "\n" + GET)
              .startsWith("HTTP/1.1 403 ");
        });
  }

  @Test
  void hearsNobodyWhoseFirstLineIsNotRight() throws Exception {
    servesItsOwn();
    String credential = GatewayFixture.CREDENTIAL;
    List<String> wrong =
        List.of(
            "FOREDECK/1 " + SANDBOX + " " + "d".repeat(64) + "\n" + GET,
            "FOREDECK/1 sbx0000000000000002 " + credential + "\n" + GET,
            "FOREDECK/2 " + SANDBOX + " " + credential + "\n" + GET,
            "FOREDECK/1  " + SANDBOX + " " + credential + "\n" + GET,
            "FOREDECK/1 " + SANDBOX + " " + credential + "\r\n" + GET,
            "FOREDECK/1 " + SANDBOX + " " + credential + " \n" + GET,
            "FOREDECK/1 " + SANDBOX + "\n" + GET,
            "FOREDECK/1 ../../etc/passwd " + credential + "\n" + GET,
            GET,
            "\n",
            "x".repeat(100_000));
    for (String said : wrong) {
      assertThat(hears(said)).as(said).isEmpty();
      servesItsOwn();
    }
    plane.close(SANDBOX);
    assertThat(flows).allMatch(flow -> flow.rule().equals("default"));
  }

  @Test
  void givesNoTimeToWhoSpeaksSlowly() throws Exception {
    try (RawClient silent = new RawClient(SocketChannel.open(bridges()));
        RawClient dripping = new RawClient(dial(bridges()))) {
      dripping.send("FOREDECK/1 ");
      assertThat(silent.readAll()).as("no TLS, no time").isEmpty();
      assertThat(dripping.readAll()).as("no line, no time").isEmpty();
    }
    servesItsOwn();
    try (RawClient plain = new RawClient(SocketChannel.open(bridges()))) {
      plain.send(GET);
      assertThat(plain.readAll()).doesNotContain("HTTP");
    } catch (IOException e) {
      assertThat(e).hasMessageContaining("reset");
    }
  }

  /// All from one address: it loses its own places, and gets them back.
  @Test
  void boundsTheStrangersOfAnAddress() throws Exception {
    List<SocketChannel> flood = new ArrayList<>();
    for (int i = 0; i < 50; i++) {
      flood.add(SocketChannel.open(bridges()));
    }
    int cut = 0;
    for (SocketChannel channel : flood) {
      channel.socket().setSoTimeout(20_000);
      try {
        if (channel.read(ByteBuffer.allocate(1)) < 0) {
          cut++;
        }
      } catch (IOException _) {
        cut++;
      }
      channel.close();
    }
    assertThat(cut).isEqualTo(50);
    servesItsOwn();
    await(
        "the flood was seen",
        () ->
            logged.list.stream()
                .anyMatch(event -> event.getFormattedMessage().contains("too many connections")));
  }

  private static LinkMessage first(DataInputStream in) throws IOException {
    return LinkCodec.read(in, LinkCodec.MAX_FRAME);
  }

  private void turnsAway(LinkMessage said, String reason) throws Exception {
    try (TlsConnection connection = dial(control())) {
      DataInputStream in = Link.input(connection);
      assertThat(first(in)).isInstanceOf(LinkMessage.Hello.class);
      Link.write(connection, said);
      assertThat(first(in))
          .isInstanceOfSatisfying(
              LinkMessage.Farewell.class,
              farewell -> assertThat(farewell.reason()).contains(reason));
    }
  }

  @Test
  void linksNoControlPlaneThatDoesNotProveItself() throws Exception {
    turnsAway(new LinkMessage.Login(1, "plane", "0".repeat(64)), "proof does not hold");
    turnsAway(new LinkMessage.Login(2, "plane", "0".repeat(64)), "speaks version 1");
    turnsAway(new LinkMessage.Open(SANDBOX, "x", "0".repeat(64)), "begins with a login");
    // What another link proved, proves nothing here.
    try (TlsConnection once = dial(control());
        TlsConnection again = dial(control())) {
      LinkMessage.Hello hello = (LinkMessage.Hello) first(Link.input(once));
      LinkMessage.Login login =
          new LinkMessage.Login(
              1, "p", GatewayFixture.KEY.proof(hello.gateway(), hello.nonce(), "p"));
      Link.write(again, login);
      DataInputStream in = Link.input(again);
      first(in);
      assertThat(first(in)).isInstanceOf(LinkMessage.Farewell.class);
    }
    servesItsOwn();
  }

  @Test
  void takesNoLongFrameFromAStranger() throws Exception {
    try (TlsConnection connection = dial(control())) {
      DataInputStream in = Link.input(connection);
      first(in);
      new RawClient(connection).send(ByteBuffer.allocate(8).putInt(1 << 30).array());
      assertCutOff(in);
    }
    servesItsOwn();
  }

  private static void assertCutOff(DataInputStream in) {
    try {
      in.readAllBytes();
    } catch (IOException e) {
      assertThat(e).isInstanceOfAny(EOFException.class, java.net.SocketException.class);
    }
  }

  @Test
  void endsALinkThatSpeaksOutOfTurn() throws Exception {
    for (LinkMessage said :
        List.of(new LinkMessage.Welcome(), new LinkMessage.Opened(SANDBOX, "x"))) {
      try (TlsConnection connection = login("other")) {
        Link.write(connection, said);
        assertCutOff(Link.input(connection));
      }
      servesItsOwn();
    }
  }

  /// A link of a control plane, spoken by hand.
  private TlsConnection login(String name) throws Exception {
    TlsConnection connection = dial(control());
    // Byte by byte: what follows must stay for the caller.
    DataInputStream in = new DataInputStream(new Slowly(connection));
    LinkMessage.Hello hello = (LinkMessage.Hello) first(in);
    Link.write(
        connection,
        new LinkMessage.Login(
            1, name, GatewayFixture.KEY.proof(hello.gateway(), hello.nonce(), name)));
    assertThat(first(in)).isEqualTo(new LinkMessage.Welcome());
    return connection;
  }

  private static final class Slowly extends InputStream {
    private final ByteConnection connection;

    Slowly(ByteConnection connection) {
      this.connection = connection;
    }

    @Override
    public int read() throws IOException {
      byte[] one = new byte[1];
      return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
    }

    @Override
    public int read(byte[] bytes, int offset, int length) throws IOException {
      return length == 0 ? 0 : connection.read(ByteBuffer.wrap(bytes, offset, length));
    }
  }

  @Test
  void boundsLinksAndSandboxes() throws Exception {
    try (TlsConnection second = login("second")) {
      DataInputStream in = Link.input(second);
      for (int i = 2; i <= 4; i++) {
        Link.write(
            second, new LinkMessage.Open(new Id("sbx000000000000000" + i), "x", "0".repeat(64)));
      }
      assertThat(first(in)).isInstanceOf(LinkMessage.Opened.class);
      assertThat(first(in)).isInstanceOf(LinkMessage.Opened.class);
      assertThat(first(in))
          .isInstanceOfSatisfying(
              LinkMessage.NotOpened.class, no -> assertThat(no.reason()).contains("3 sandboxes"));
      Link.write(second, new LinkMessage.Open(SANDBOX, "x", "not a hash"));
      assertThat(first(in)).isInstanceOf(LinkMessage.NotOpened.class);
      LinkMessage.Hello hello;
      try (TlsConnection third = dial(control())) {
        DataInputStream thirdIn = Link.input(third);
        hello = (LinkMessage.Hello) first(thirdIn);
        Link.write(
            third,
            new LinkMessage.Login(
                1, "third", GatewayFixture.KEY.proof(hello.gateway(), hello.nonce(), "third")));
        assertThat(first(thirdIn))
            .isInstanceOfSatisfying(
                LinkMessage.Farewell.class, no -> assertThat(no.reason()).contains("2 links"));
      }
    }
  }

  @Test
  void isPinnedByItsControlPlaneAndItsBridges() throws Exception {
    CertificatePin other = CertificatePin.of("0".repeat(64));
    for (InetSocketAddress port : List.of(bridges(), control())) {
      try (TlsConnection connection = new TlsConnection(SocketChannel.open(port), other.engine())) {
        assertThatThrownBy(connection::handshake).hasMessageContaining("certificate");
      }
    }
    try (RemoteEgressGateway deceived =
        new RemoteEgressGateway(
            Map.of("gateway", Dialer.to("127.0.0.1", control().getPort())),
            other,
            GatewayFixture.KEY,
            "plane",
            new LinkLimits(8, 4, 1000, 300, 2, 3, 50, 15_000, 5_000, 60_000, 1000, 500, 500, 200),
            System::nanoTime,
            new SecureRandom())) {
      assertThatThrownBy(() ->
              deceived.open(
                  new Id("sbx0000000000000002"),
                  GatewayFixture.credential(),
                  GatewayFixture.RULES,
                  flows::add))
          .isInstanceOf(IOException.class)
          .hasMessageContaining("no egress gateway answered within 500 ms");
    }
  }
}
