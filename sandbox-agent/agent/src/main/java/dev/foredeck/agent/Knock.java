package dev.foredeck.agent;

import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.ConnectException;
import java.net.DatagramPacket;
import java.net.DatagramSocket;
import java.net.Inet6Address;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.NetworkInterface;
import java.net.PortUnreachableException;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/// Says what answers from inside a sandbox: a driver that puts sandboxes on a network runs it in
/// one before it accepts work. In the bundle, so that it needs nothing of a template.
///
/// Arguments: `tcp/ADDRESS/PORT` or `udp/ADDRESS/PORT` (asked as a name server). One line for each:
/// `answers TARGET` or `silent TARGET`. A refusal is an answer: packets went there and back.
/// `file/PATH` asks what a sandbox sees of its kernel: `holds file/PATH CONTENT`, as one line and
/// cut to 400 characters, or `silent file/PATH`. Without arguments: the sandbox's own addresses,
/// one a line.
final class Knock {
  private static final int WAIT_MILLIS = 3_000;
  private static final String FILE = "file/";
  private static final int FILE_BYTES = 400;

  /// A question for the root's name servers.
  private static final byte[] QUESTION =
      HexFormat.of().parseHex("1234010000010000000000000000020001");

  private Knock() {}

  public static void main(String[] targets) throws Exception {
    if (targets.length == 0) {
      for (NetworkInterface each : interfaces()) {
        each.inetAddresses()
            .forEach(a -> System.out.println(a.getHostAddress().replaceAll("%.*", "")));
      }
      return;
    }
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Callable<String>> tries = new ArrayList<>();
      for (String target : targets) {
        tries.add(() -> target.startsWith(FILE) ? file(target) : door(target));
      }
      for (Future<String> said : threads.invokeAll(tries)) {
        System.out.println(said.get());
      }
    }
  }

  private static String file(String target) {
    try (InputStream file = new FileInputStream(target.substring(FILE.length() - 1))) {
      String content = new String(file.readNBytes(FILE_BYTES), StandardCharsets.UTF_8);
      return "holds " + target + " " + content.strip().replaceAll("\\s+", " ");
    } catch (IOException _) {
      return "silent " + target;
    }
  }

  private static String door(String target) throws IOException {
    return (answers(target.split("/", 3)) ? "answers " : "silent ") + target;
  }

  private static List<NetworkInterface> interfaces() throws IOException {
    List<NetworkInterface> found = new ArrayList<>();
    for (NetworkInterface each : NetworkInterface.networkInterfaces().toList()) {
      if (!each.isLoopback()) {
        found.add(each);
      }
    }
    return found;
  }

  private static boolean answers(String[] target) throws IOException {
    int port = Integer.parseInt(target[2]);
    for (InetAddress address : scoped(InetAddress.ofLiteral(target[1]))) {
      InetSocketAddress where = new InetSocketAddress(address, port);
      if (target[0].equals("udp") ? answersUdp(where) : answersTcp(where)) {
        return true;
      }
    }
    return false;
  }

  /// A link-local address is one on each link.
  private static List<InetAddress> scoped(InetAddress address) throws IOException {
    if (!(address instanceof Inet6Address) || !address.isLinkLocalAddress()) {
      return List.of(address);
    }
    List<InetAddress> scoped = new ArrayList<>();
    for (NetworkInterface each : interfaces()) {
      scoped.add(Inet6Address.getByAddress(null, address.getAddress(), each));
    }
    return scoped;
  }

  private static boolean answersTcp(InetSocketAddress where) {
    try (Socket socket = new Socket()) {
      socket.connect(where, WAIT_MILLIS);
      return true;
    } catch (ConnectException e) {
      // Refused by the other side; what the own kernel says (no route, not permitted) is no answer.
      return String.valueOf(e.getMessage()).contains("refused");
    } catch (IOException _) {
      return false;
    }
  }

  private static boolean answersUdp(InetSocketAddress where) {
    try (DatagramSocket socket = new DatagramSocket()) {
      socket.setSoTimeout(WAIT_MILLIS);
      socket.connect(where);
      socket.send(new DatagramPacket(Arrays.copyOf(QUESTION, QUESTION.length), QUESTION.length));
      socket.receive(new DatagramPacket(new byte[512], 512));
      return true;
    } catch (PortUnreachableException _) {
      return true;
    } catch (IOException _) {
      return false;
    }
  }
}
