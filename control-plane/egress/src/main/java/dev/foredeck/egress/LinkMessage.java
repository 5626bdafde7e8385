package dev.foredeck.egress;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.Verdict;

/// What crosses the link between a control plane and an egress gateway, version 1.
///
/// The gateway says [Hello] and the control plane answers [Login]; after [Welcome] each side sends
/// what it has. Nothing is answered in order: what belongs together has the same sandbox and
/// opening, or the same question.
sealed interface LinkMessage {
  int VERSION = 1;

  /// Gateway: who it is and what the control plane has to sign.
  ///
  /// @param gateway names this life of the gateway: flows that it kept died with any other
  /// @param nonce 64 hexadecimal digits, new for each link
  record Hello(int oldestVersion, int newestVersion, String gateway, String nonce)
      implements LinkMessage {}

  /// Control plane.
  ///
  /// @param proof see [LinkKey#proof]
  record Login(int version, String controlPlane, String proof) implements LinkMessage {}

  /// Gateway: the proof holds.
  record Welcome() implements LinkMessage {}

  /// Either side, before it ends the link.
  record Farewell(String reason) implements LinkMessage {}

  /// Control plane: let this sandbox in.
  ///
  /// @param opening names this opening: again with the same, connections go on
  record Open(Id sandbox, String opening, String credentialSha256) implements LinkMessage {}

  /// Gateway: done.
  record Opened(Id sandbox, String opening) implements LinkMessage {}

  /// Gateway: not done.
  record NotOpened(Id sandbox, String opening, String reason) implements LinkMessage {}

  /// Control plane: shut this sandbox out. What is kept of it comes to this link.
  record Close(Id sandbox) implements LinkMessage {}

  /// Gateway: it is out, and all of its flows were sent before this.
  record Closed(Id sandbox) implements LinkMessage {}

  /// Gateway: what do the rules say?
  record Question(long number, Id sandbox, String host, int port, String method, String path)
      implements LinkMessage {}

  /// Control plane.
  record Answer(long number, Verdict verdict) implements LinkMessage {}

  /// Gateway: a flow has ended. Kept until [Recorded].
  ///
  /// @param number ascending in a gateway's life
  /// @param repeated whether it was sent before
  record Ended(Id sandbox, long number, boolean repeated, Flow flow) implements LinkMessage {}

  /// Control plane: this flow, and all of its sandbox before it, are durable.
  record Recorded(Id sandbox, long number) implements LinkMessage {}

  /// Either side, where it has said nothing else for a while: a side ends a link that is silent.
  record Ping() implements LinkMessage {}
}
