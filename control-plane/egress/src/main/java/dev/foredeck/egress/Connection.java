package dev.foredeck.egress;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static java.nio.charset.StandardCharsets.US_ASCII;

import dev.foredeck.core.egress.EgressGateway.Verdict;
import java.io.EOFException;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketTimeoutException;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.Channel;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SocketChannel;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// One connection of a sandbox: one request or one tunnel, one flow.
///
/// Threading: its own thread does everything but the bytes from the sandbox to the web while the
/// answer comes the other way; those have a second thread, which has ended before this one does.
/// The timer and the gateway end a connection from outside by closing channels, never by waiting.
///
/// Invariant: every way out leads through [#record], once; and nothing of what the sandbox sent is
/// passed on before rules, addresses and (in a tunnel) the server name have been judged.
final class Connection implements Runnable {
  private static final Logger log = LoggerFactory.getLogger(Connection.class);

  /// For the client to read a refusal before the channel goes.
  private static final long LINGER_MILLIS = 1_000;

  private static final int MAX_INTERIM_ANSWERS = 16;
  private static final int MAX_CONNECT_ATTEMPTS = 6;
  private static final long NANOS_PER_MILLI = 1_000_000;
  private static final byte[] CRLF = {'\r', '\n'};
  private static final byte[] LAST_CHUNK = {'0', '\r', '\n', '\r', '\n'};

  private final SandboxEgress egress;
  private final Surroundings around;
  private final ByteConnection client;
  private final FlowTally tally;
  private final Deadline deadline;
  private final CountDownLatch ended = new CountDownLatch(1);
  private volatile @Nullable Thread thread;
  private volatile @Nullable Channel upstream;
  private volatile Deadline.@Nullable Expiry expiry;
  private volatile @Nullable String abortedWhy;

  /// What the second thread found, for the first to tell the client.
  private volatile @Nullable Refusal cause;

  private String asked = "";
  private boolean answering;
  private boolean tunnelled;

  Connection(SandboxEgress egress, ByteConnection client) {
    this.egress = egress;
    this.around = egress.around();
    this.client = client;
    this.tally = new FlowTally(around.nanoTime());
    this.deadline =
        new Deadline(
            around.timer(), around.nanoTime(), around.limits().totalMillis(), this::expire);
  }

  @Override
  public void run() {
    thread = Thread.currentThread();
    ByteBuffer buffer = around.buffers().take();
    try {
      if (abortedWhy == null) {
        deadline.within(around.limits().headMillis(), "the request head");
        converse(new Wire(client, buffer, deadline::touch));
      }
    } catch (RuntimeException bug) {
      log.error("an egress connection failed", bug);
      tally.refuse(Refusal.denied("internal", "the gateway failed; its log says why"));
      record();
    } finally {
      deadline.close();
      close(upstream);
      close(client);
      around.buffers().give(buffer);
      egress.ended(this);
      ended.countDown();
    }
  }

  // -- Ends that come from outside

  /// Ends the connection at once.
  void abort(String why) {
    abortedWhy = why;
    close(upstream);
    close(client);
    Thread running = thread;
    if (running != null) {
      running.interrupt();
    }
  }

  /// Ends what the connection waits for, and leaves it a moment to say so.
  private void expire(Deadline.Expiry reached) {
    expiry = reached;
    close(upstream);
    shutdownInput();
    try {
      var _ = around.timer().schedule(() -> close(client), LINGER_MILLIS, TimeUnit.MILLISECONDS);
    } catch (RejectedExecutionException _) {
      close(client);
    }
  }

  boolean awaitEnd(long nanos) throws InterruptedException {
    return ended.await(nanos, TimeUnit.NANOSECONDS);
  }

  // -- The conversation

  private void converse(Wire wire) {
    try {
      byte[] bytes = wire.readHead(around.limits().headBytes());
      if (bytes.length == 0) {
        return; // Nothing was asked, in time or ever: no flow.
      }
      handle(wire, Head.parse(bytes, around.limits().headers()));
      record();
      finish(wire);
    } catch (Wire.HeadTooLargeException _) {
      int most = around.limits().headBytes();
      end(wire, Refusal.limit(431, "the request head is larger than " + most + " bytes"));
    } catch (MalformedHeadException e) {
      end(wire, Refusal.badRequest(e.getMessage()));
    } catch (Refusal refusal) {
      end(wire, refusal);
    } catch (IOException e) {
      broken(wire, e);
    }
  }

  /// A channel broke, or was closed from outside: the reason is whoever did that.
  private void broken(Wire wire, IOException e) {
    Refusal found = cause;
    Deadline.Expiry reached = expiry;
    String why = abortedWhy;
    if (found != null) {
      end(wire, found);
    } else if (asked.isEmpty() && !wire.unread().hasRemaining()) {
      log.debug("a client left without a word");
    } else if (why != null) {
      tally.note(why);
      record();
    } else if (reached != null && tunnelled && reached.idle()) {
      tally.note("the tunnel ended: " + reached.reason());
      record();
    } else if (reached != null) {
      end(wire, Refusal.limit(asked.isEmpty() ? 408 : 504, reached.reason()));
    } else if (asked.isEmpty()) {
      end(wire, Refusal.badRequest("the connection ended within the request head"));
    } else {
      end(wire, Refusal.upstream(502, "the connection broke: " + what(e)));
    }
  }

  private static String what(IOException e) {
    String message = e.getMessage();
    if (message == null) {
      return e.getClass().getSimpleName();
    }
    return message;
  }

  /// Records the refusal, tells the client where it can still be told, and lets it read that.
  private void end(Wire wire, Refusal refusal) {
    tally.refuse(refusal);
    close(upstream);
    record();
    try {
      if (!answering) {
        answering = true;
        wire.write(ByteBuffer.wrap(Answers.refusal(refusal, tally.rule(), asked)));
      } else if (refusal.rule().equals("sni-mismatch")) {
        wire.write(ByteBuffer.wrap(Answers.UNRECOGNIZED_NAME));
      } else if (refusal.rule().equals("not-tls")) {
        wire.write(ByteBuffer.wrap(Answers.refusal(refusal, tally.rule(), asked)));
      } else {
        return; // Half an answer is out: only its end can be told, by ending.
      }
      client.shutdownOutput();
      deadline.within(LINGER_MILLIS, "reading the refusal");
      discard(wire);
    } catch (IOException _) {
      log.debug("a client left before it was told");
    }
  }

  /// The answer is whole: sees that it arrives.
  private void finish(Wire wire) {
    if (!client.lingers()) {
      return; // What is in a unix socket stays there for its reader.
    }
    try {
      deadline.within(LINGER_MILLIS, "reading the answer");
      client.shutdownOutput();
      discard(wire);
    } catch (IOException _) {
      log.debug("a client left before the end of its answer");
    }
  }

  private void record() {
    tally.take().ifPresent(egress.outbox()::add);
  }

  private void handle(Wire wire, Head head) throws IOException, Refusal {
    tally.claimed(ProxyRequest.claimedCall(head));
    ProxyRequest request = ProxyRequest.from(head);
    tally.asked(request);
    asked = request.method() + " " + request.authority() + request.path();
    checkExpectations(request);
    deadline.within(around.limits().headMillis(), "the decision");
    Verdict verdict = decide(request);
    if (!verdict.allowed()) {
      throw Refusal.denied(verdict.rule(), verdict.reason());
    }
    tally.allowed(verdict);
    // Both have limits of their own; this one is for what they might not foresee.
    EgressLimits limits = around.limits();
    deadline.within(2 * (limits.resolveMillis() + limits.connectMillis()), "finding the server");
    List<InetSocketAddress> addresses =
        around.destinations().find(request.authority(), egress.lookups());
    SocketChannel server = connect(request.authority(), addresses);
    ByteBuffer buffer = around.buffers().take();
    Wire serverWire = new Wire(ByteConnection.of(server), buffer, deadline::touch);
    try {
      if (request.isTunnel()) {
        tunnel(request.authority().host(), wire, serverWire);
      } else {
        exchange(request, wire, serverWire);
      }
    } finally {
      around.buffers().give(buffer); // Both have waited for their second thread.
    }
  }

  private Verdict decide(ProxyRequest request) throws Refusal {
    Authority authority = request.authority();
    try {
      return egress
          .rules()
          .decide(authority.host().text(), authority.port(), request.method(), request.path());
    } catch (RulesUnavailableException e) {
      throw Refusal.unavailable(e.getMessage());
    } catch (RuntimeException e) {
      log.error("egress rules failed", e);
      throw Refusal.denied("policy-error", "the rules could not be evaluated");
    }
  }

  private static void checkExpectations(ProxyRequest request) throws Refusal {
    for (Header field : request.head().fields()) {
      // An offer of h2c may be left unanswered, and some clients make it always.
      if (field.is("Upgrade") && !field.value().equalsIgnoreCase("h2c")) {
        throw Refusal.badRequest("a connection cannot be upgraded here; use CONNECT and TLS");
      }
      if (field.is("Expect") && !field.value().equalsIgnoreCase("100-continue")) {
        throw Refusal.badRequest("an expectation other than 100-continue cannot be met");
      }
    }
  }

  private SocketChannel connect(Authority authority, List<InetSocketAddress> addresses)
      throws Refusal, IOException {
    long until = around.nanoTime().getAsLong() + around.limits().connectMillis() * NANOS_PER_MILLI;
    int attempts = Math.min(addresses.size(), MAX_CONNECT_ATTEMPTS);
    boolean late = false;
    String last = "";
    for (int i = 0; i < attempts; i++) {
      long leftMillis = (until - around.nanoTime().getAsLong()) / NANOS_PER_MILLI;
      int share = (int) Math.max(1, leftMillis / (attempts - i));
      SocketChannel server = SocketChannel.open();
      upstream = server;
      if (abortedWhy != null || expiry != null) {
        throw new ClosedChannelException();
      }
      try {
        server.socket().connect(addresses.get(i), share);
        server.setOption(StandardSocketOptions.TCP_NODELAY, true);
        tally.connectedTo(addressText(authority, addresses.get(i)));
        return server;
      } catch (SocketTimeoutException _) {
        late = true;
        last = "no answer within " + around.limits().connectMillis() + " ms";
      } catch (IOException e) {
        late = false;
        last = what(e);
      }
      server.close();
    }
    if (abortedWhy != null || expiry != null) {
      throw new ClosedChannelException();
    }
    throw Refusal.upstream(late ? 504 : 502, authority + " could not be reached: " + last);
  }

  /// The address; with its port where a pin leads to another one than was asked for.
  private static String addressText(Authority authority, InetSocketAddress address) {
    String text = Addresses.text(address.getAddress());
    if (address.getPort() == authority.port()) {
      return text;
    }
    return text + " port " + address.getPort();
  }

  // -- A tunnel

  private void tunnel(Host host, Wire wire, Wire server) throws IOException, Refusal {
    answering = true;
    wire.write(ByteBuffer.wrap(Answers.ESTABLISHED));
    deadline.within(around.limits().headMillis(), "the TLS ClientHello");
    Optional<ClientHello.Parsed> hello = readHello(wire);
    if (hello.isEmpty()) {
      tally.note("the client opened the tunnel and sent nothing");
      return;
    }
    checkServerName(host, hello.get().serverName());
    tunnelled = true;
    deadline.whileActive(around.limits().idleMillis());
    Thread outward = Thread.ofVirtual().name("egress-out").start(() -> relayOutward(wire, server));
    try {
      relay(server, wire, false);
    } catch (IOException | Refusal e) {
      close(upstream);
      close(client);
      throw e;
    } finally {
      await(outward);
    }
    if (cause != null || expiry != null || abortedWhy != null) {
      throw new ClosedChannelException();
    }
  }

  private Optional<ClientHello.Parsed> readHello(Wire wire) throws IOException, Refusal {
    int needed = 1;
    while (true) {
      while (wire.unread().remaining() < needed) {
        if (wire.fill()) {
          continue;
        }
        if (expiry != null) {
          throw new EOFException("expired");
        }
        if (!wire.unread().hasRemaining()) {
          return Optional.empty();
        }
        throw Refusal.denied("not-tls", "the tunnel ended within the TLS ClientHello");
      }
      switch (ClientHello.parse(wire.unread(), around.limits().helloBytes())) {
        case ClientHello.Incomplete(int total) -> needed = total;
        case ClientHello.NotTls(String reason) ->
            throw Refusal.denied("not-tls", "a tunnel carries TLS only: " + reason);
        case ClientHello.Parsed parsed -> {
          return Optional.of(parsed);
        }
      }
    }
  }

  private static void checkServerName(Host host, Optional<String> serverName) throws Refusal {
    if (host.literal().isPresent()) {
      if (serverName.isPresent()) {
        throw Refusal.denied(
            "sni-mismatch", "the tunnel leads to an IP address and TLS names a server");
      }
      return;
    }
    if (serverName.isEmpty()) {
      throw Refusal.denied(
          "sni-mismatch", "TLS names no server; the tunnel leads to " + host.text());
    }
    String named;
    try {
      named = Host.parse(serverName.get()).text();
    } catch (Refusal _) {
      throw Refusal.denied("sni-mismatch", "TLS names a server in a way that no host has");
    }
    if (!named.equals(host.text())) {
      throw Refusal.denied(
          "sni-mismatch", "TLS names " + named + "; the tunnel leads to " + host.text());
    }
  }

  private void relayOutward(Wire wire, Wire server) {
    try {
      relay(wire, server, true);
    } catch (Refusal refusal) {
      cause = refusal;
      close(upstream);
      close(client);
    } catch (IOException _) {
      close(upstream);
      close(client);
    }
  }

  /// Moves bytes until the sender has no more, and tells the receiver so.
  private void relay(Wire from, Wire to, boolean outward) throws IOException, Refusal {
    do {
      while (from.unread().hasRemaining()) {
        move(from.unread(), to, outward);
      }
    } while (from.fill());
    if (expiry == null) {
      to.channel().shutdownOutput();
    }
  }

  private void move(ByteBuffer bytes, Wire to, boolean outward) throws IOException, Refusal {
    int length = bytes.remaining();
    egress.spend(tally, length);
    to.write(bytes);
    moved(length, outward);
  }

  private void moved(int length, boolean outward) {
    if (outward) {
      tally.movedOut(length);
    } else {
      tally.movedIn(length);
    }
  }

  // -- One request and its answer

  private void exchange(ProxyRequest request, Wire wire, Wire server) throws IOException, Refusal {
    deadline.whileActive(around.limits().idleMillis());
    move(ByteBuffer.wrap(requestHead(request)), server, true);
    boolean hasBody =
        !(request.body() instanceof Head.Framing.None)
            && !request.body().equals(new Head.Framing.Length(0));
    if (!hasBody) {
      answer(request, wire, server);
      return;
    }
    Thread upload =
        Thread.ofVirtual().name("egress-out").start(() -> upload(request, wire, server));
    boolean answered = false;
    try {
      answer(request, wire, server);
      record();
      client.shutdownOutput();
      deadline.within(LINGER_MILLIS, "the end of the upload");
      answered = true;
    } finally {
      close(upstream);
      if (!answered) {
        shutdownInput(); // The upload would wait for a client that has nothing to wait for.
      }
      await(upload);
    }
  }

  private static byte[] requestHead(ProxyRequest request) {
    StringBuilder head = new StringBuilder(512);
    head.append(request.method()).append(' ').append(request.target()).append(" HTTP/1.1\r\n");
    head.append("Host: ").append(request.authority().withoutPort(80)).append("\r\n");
    for (Header field : request.head().endToEnd()) {
      if (!field.is("Host") && !(field.is("Expect") && request.version() == 0)) {
        append(head, field);
      }
    }
    appendFraming(head, request.body());
    head.append("Connection: close\r\n\r\n");
    return head.toString().getBytes(ISO_8859_1);
  }

  private static void append(StringBuilder head, Header field) {
    head.append(field.name()).append(": ").append(field.value()).append("\r\n");
  }

  private static void appendFraming(StringBuilder head, Head.Framing framing) {
    switch (framing) {
      case Head.Framing.None _, Head.Framing.UntilEnd _ -> {}
      case Head.Framing.Length(long bytes) ->
          head.append("Content-Length: ").append(bytes).append("\r\n");
      case Head.Framing.Chunked _ -> head.append("Transfer-Encoding: chunked\r\n");
    }
  }

  /// The request's body, on the second thread. A server may answer before it has read all of it;
  /// the rest is then read and dropped, so that the client gets to the answer.
  private void upload(ProxyRequest request, Wire wire, Wire server) {
    try {
      BodySource body = new BodySource(wire, request.body(), around.limits().headBytes());
      copy(body, server, request.body() instanceof Head.Framing.Chunked, true);
    } catch (Refusal refusal) {
      cause = refusal;
      close(upstream);
    } catch (MalformedHeadException e) {
      cause = Refusal.badRequest(e.getMessage());
      close(upstream);
    } catch (EOFException _) {
      if (expiry == null && server.channel().isOpen()) {
        cause = Refusal.badRequest("the request ended within its body");
      }
      close(upstream);
    } catch (IOException _) {
      discard(wire);
    }
  }

  private void answer(ProxyRequest request, Wire wire, Wire server) throws IOException, Refusal {
    try {
      ServerResponse response = finalResponse(request, wire, server);
      Head.Framing framing = response.body(request.method());
      boolean endless =
          framing instanceof Head.Framing.Chunked || framing instanceof Head.Framing.UntilEnd;
      boolean chunked = endless && request.version() == 1;
      byte[] head = responseHead(response, request.method(), framing, chunked);
      answering = true;
      wire.write(ByteBuffer.wrap(head));
      copy(new BodySource(server, framing, around.limits().headBytes()), wire, chunked, false);
    } catch (MalformedHeadException e) {
      throw Refusal.upstream(502, "the server's answer is not HTTP/1.1: " + e.getMessage());
    } catch (Wire.HeadTooLargeException _) {
      throw Refusal.upstream(502, "the head of the server's answer is too large");
    }
  }

  private ServerResponse finalResponse(ProxyRequest request, Wire wire, Wire server)
      throws IOException, Refusal, MalformedHeadException, Wire.HeadTooLargeException {
    for (int i = 0; i <= MAX_INTERIM_ANSWERS; i++) {
      byte[] head = server.readHead(around.limits().headBytes());
      if (head.length == 0) {
        throw new EOFException("the server closed without an answer");
      }
      egress.spend(tally, head.length);
      tally.movedIn(head.length);
      ServerResponse response = ServerResponse.from(Head.parse(head, around.limits().headers()));
      if (!response.isInterim()) {
        return response;
      }
      if (response.status() == 101) {
        throw Refusal.upstream(502, "the server changed protocols without being asked");
      }
      if (request.version() == 1) {
        byte[] interim = responseHead(response, request.method(), new Head.Framing.None(), false);
        wire.write(ByteBuffer.wrap(interim));
      }
    }
    throw Refusal.upstream(502, "the server sent interim answers without end");
  }

  private static byte[] responseHead(
      ServerResponse response, String method, Head.Framing framing, boolean chunked)
      throws MalformedHeadException {
    StringBuilder head = new StringBuilder(512);
    head.append("HTTP/1.1 ").append(response.status()).append(' ').append(response.phrase());
    head.append("\r\n");
    for (Header field : response.head().endToEnd()) {
      append(head, field);
    }
    if (response.isInterim()) {
      return head.append("\r\n").toString().getBytes(ISO_8859_1);
    }
    if (chunked) {
      appendFraming(head, new Head.Framing.Chunked());
    } else if (framing instanceof Head.Framing.Length) {
      appendFraming(head, framing);
    } else if (method.equals("HEAD") || response.status() == 304) {
      // The length of a body that is not sent: information, not framing.
      Head.Framing stated = response.head().framing().orElse(framing);
      if (stated instanceof Head.Framing.Length) {
        appendFraming(head, stated);
      }
    }
    return head.append("Connection: close\r\n\r\n").toString().getBytes(ISO_8859_1);
  }

  private void copy(BodySource body, Wire to, boolean chunked, boolean outward)
      throws IOException, MalformedHeadException, Refusal {
    while (true) {
      ByteBuffer piece = body.next();
      if (piece == null) {
        break;
      }
      int length = piece.remaining();
      if (!chunked) {
        move(piece, to, outward);
        continue;
      }
      egress.spend(tally, length);
      byte[] size = (Integer.toHexString(length) + "\r\n").getBytes(US_ASCII);
      to.write(ByteBuffer.wrap(size), piece, ByteBuffer.wrap(CRLF));
      moved(length, outward);
    }
    if (chunked) {
      to.write(ByteBuffer.wrap(LAST_CHUNK));
    }
  }

  // -- Channels and threads

  private static void discard(Wire wire) {
    try {
      do {
        wire.unread().position(wire.unread().limit());
      } while (wire.fill());
    } catch (IOException _) {
      log.debug("a client left before its bytes were dropped");
    }
  }

  private void shutdownInput() {
    try {
      client.shutdownInput();
    } catch (IOException _) {
      log.debug("a client was gone already");
    }
  }

  private static void close(@Nullable Channel channel) {
    if (channel == null) {
      return;
    }
    try {
      channel.close();
    } catch (IOException e) {
      log.debug("a channel could not be closed: {}", e.toString());
    }
  }

  /// Waits for the second thread, whatever comes: the buffers that it uses go to somebody else
  /// next. Its channels are closed or about to end, so it does.
  private static void await(Thread second) {
    boolean interrupted = false;
    while (true) {
      try {
        second.join();
        break;
      } catch (InterruptedException _) {
        interrupted = true;
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
