package dev.foredeck.egress;

import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.FlowRecorder;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Hands a sandbox's flows to their recorder, one at a time and on a thread of its own, so that no
/// byte waits for the log. When the recorder falls behind by the whole queue, the connections that
/// end wait for it, and in the end so does the sandbox: nothing is dropped, nothing grows.
final class FlowOutbox {
  private static final Logger log = LoggerFactory.getLogger(FlowOutbox.class);

  private sealed interface Entry {
    record Ended(Flow flow) implements Entry {}

    record Last() implements Entry {}
  }

  private final BlockingQueue<Entry> entries;
  private final Thread carrier;

  FlowOutbox(String sandbox, FlowRecorder recorder, int capacity) {
    entries = new ArrayBlockingQueue<>(capacity);
    carrier =
        Thread.ofVirtual().name("egress-flows-" + sandbox).start(() -> carry(sandbox, recorder));
  }

  private void carry(String sandbox, FlowRecorder recorder) {
    while (true) {
      try {
        switch (entries.take()) {
          case Entry.Ended(Flow flow) -> recorder.record(flow);
          case Entry.Last() -> {
            return;
          }
        }
      } catch (InterruptedException _) {
        return;
      } catch (RuntimeException e) {
        log.error("a flow of {} could not be recorded", sandbox, e);
      }
    }
  }

  /// Waits where the recorder is behind. An interrupt is kept for later: a flow is never lost to
  /// it.
  void add(Flow flow) {
    put(new Entry.Ended(flow));
  }

  private void put(Entry entry) {
    boolean interrupted = false;
    while (true) {
      try {
        entries.put(entry);
        break;
      } catch (InterruptedException _) {
        interrupted = true;
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  /// Waits until all that was added is recorded. Nothing may be added afterwards.
  ///
  /// @return false where the recorder did not take it in time
  boolean drain(long millis) throws InterruptedException {
    if (!entries.offer(new Entry.Last(), millis, TimeUnit.MILLISECONDS)) {
      return false;
    }
    return carrier.join(java.time.Duration.ofMillis(millis));
  }
}
