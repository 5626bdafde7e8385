package dev.foredeck.core.egress;

import dev.foredeck.core.Id;
import java.io.IOException;

/// The governed way to the web: an HTTP proxy per sandbox. Denies until opened.
public interface EgressGateway extends AutoCloseable {

  /// Lets one sandbox in. Idempotent: opening again replaces the way and the rules.
  ///
  /// @param path how the sandbox comes; a stale socket file is replaced
  /// @param rules decides on each connection
  /// @param flows is told of each flow when it ends, refusals included; must not block for long
  void open(Id sandbox, EgressPath path, EgressRules rules, FlowRecorder flows) throws IOException;

  /// Shuts a sandbox out and ends its connections; a socket file is removed. Idempotent.
  void close(Id sandbox);

  /// Shuts a sandbox out that another process may have opened: the flows that nobody took from it
  /// go to `flows`.
  default void close(Id sandbox, FlowRecorder flows) {
    close(sandbox);
  }

  /// Shuts every sandbox out.
  @Override
  void close();

  /// Decides on one connection or request. Pure, fast, called for each.
  interface EgressRules {
    /// @param host lower case, without trailing dot; a name or an IP literal
    /// @param method `CONNECT` for a tunnel
    /// @param path empty for a tunnel
    Verdict decide(String host, int port, String method, String path);
  }

  /// @param rule the id of the rule that decided; `default` where none matched
  /// @param reason for the person or agent that is refused
  /// @param shadow whether it is allowed only because its policy does not enforce: `rule` denies it
  record Verdict(boolean allowed, String rule, String reason, boolean shadow) {
    public Verdict(boolean allowed, String rule, String reason) {
      this(allowed, rule, reason, false);
    }
  }

  /// Where flows go.
  interface FlowRecorder {
    void record(Flow flow);

    /// A flow that its gateway keeps until it is durable, and hands over again where it never hears
    /// that it is.
    default void record(Flow flow, Delivery delivery) {
      record(flow);
      delivery.recorded().run();
    }
  }

  /// How a gateway of its own process hands a flow over.
  ///
  /// @param gateway names one life of one gateway: lower-case letters and digits
  /// @param number of the flow, ascending within a gateway and a sandbox
  /// @param repeated whether it was handed over before, to a process that may have recorded it
  /// @param recorded to be run once the flow is durable; does not block
  record Delivery(String gateway, long number, boolean repeated, Runnable recorded) {
    /// What tells the flow from every other one of its sandbox.
    public String id() {
      return gateway + "-" + number;
    }
  }

  /// One connection or request through the gateway.
  ///
  /// @param claimedCall the call id that the proxy credential claimed; empty without one
  /// @param address the address that was connected to; empty when none was
  /// @param effect `allow` or `deny`
  /// @param rule the rule that decided, or what refused it: `private-address`, `sni-mismatch`,
  ///   `limit`, `unresolved`, `bad-request`, `unavailable`
  /// @param shadow whether it was allowed although `rule` denies it, by a policy that only records
  /// @param bytesIn from the web to the sandbox
  /// @param bytesOut from the sandbox to the web
  /// @param millis from request to end
  record Flow(
      String claimedCall,
      String host,
      int port,
      String address,
      String method,
      String path,
      String effect,
      String rule,
      String reason,
      boolean shadow,
      long bytesIn,
      long bytesOut,
      long millis) {}
}
