package dev.foredeck.egress;

import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.Verdict;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongSupplier;

/// What becomes a [Flow] when its connection ends. The first refusal stays: what fails after it
/// fails because of it. Thread-safe.
final class FlowTally {
  private static final int MAX_PATH = 1024;
  private static final int MAX_REASON = 512;
  private static final long NANOS_PER_MILLI = 1_000_000;

  private final LongSupplier nanoTime;
  private final long startedNanos;
  private final AtomicLong bytesIn = new AtomicLong();
  private final AtomicLong bytesOut = new AtomicLong();
  private String claimedCall = "";
  private String host = "";
  private int port;
  private String address = "";
  private String method = "";
  private String path = "";
  private String effect = "deny";
  private String rule = "bad-request";
  private String reason = "the connection ended before its request";
  private boolean shadow;
  private boolean settled;
  private boolean taken;

  FlowTally(LongSupplier nanoTime) {
    this.nanoTime = nanoTime;
    this.startedNanos = nanoTime.getAsLong();
  }

  synchronized void claimed(String call) {
    claimedCall = call;
  }

  synchronized void asked(ProxyRequest request) {
    host = request.authority().host().text();
    port = request.authority().port();
    method = request.method();
    path = shownPath(request.path());
  }

  synchronized void allowed(Verdict verdict) {
    effect = "allow";
    rule = verdict.rule();
    shadow = verdict.shadow();
    reason = bounded(verdict.reason(), MAX_REASON);
  }

  synchronized void connectedTo(String connectedAddress) {
    address = connectedAddress;
  }

  /// @return whether this is the first refusal of the flow
  synchronized boolean refuse(Refusal refusal) {
    if (settled) {
      return false;
    }
    settled = true;
    reason = bounded(refusal.reason(), MAX_REASON);
    if (refusal.isDenied()) {
      effect = "deny";
      rule = refusal.rule();
      shadow = false;
    }
    return true;
  }

  /// An end that is not a refusal: the flow stays what the rules made it, with a note.
  synchronized void note(String what) {
    if (!settled) {
      settled = true;
      reason = bounded(what, MAX_REASON);
    }
  }

  synchronized String rule() {
    return rule;
  }

  void movedIn(long bytes) {
    bytesIn.addAndGet(bytes);
  }

  void movedOut(long bytes) {
    bytesOut.addAndGet(bytes);
  }

  long moved() {
    return bytesIn.get() + bytesOut.get();
  }

  /// The flow as it ended; nothing the second time.
  synchronized Optional<Flow> take() {
    if (taken) {
      return Optional.empty();
    }
    taken = true;
    long millis = (nanoTime.getAsLong() - startedNanos) / NANOS_PER_MILLI;
    return Optional.of(
        new Flow(
            claimedCall,
            host,
            port,
            address,
            method,
            path,
            effect,
            rule,
            reason,
            shadow,
            bytesIn.get(),
            bytesOut.get(),
            millis));
  }

  /// As much of a path as a flow holds.
  static String shownPath(String path) {
    return bounded(path, MAX_PATH);
  }

  private static String bounded(String text, int max) {
    if (text.length() <= max) {
      return text;
    }
    return text.substring(0, max - 3) + "...";
  }
}
