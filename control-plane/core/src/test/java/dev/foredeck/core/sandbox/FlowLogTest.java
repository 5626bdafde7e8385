package dev.foredeck.core.sandbox;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Events;
import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Delivery;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.kit.World;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// Flows of a gateway of its own process, which hands over again what it never heard of.
@Timeout(60)
class FlowLogTest {
  private final World world = new World();
  private final Id sandbox = world.ready().id();
  private final List<Long> recorded = new CopyOnWriteArrayList<>();

  private static Flow flow(long number) {
    return new Flow(
        "", "h" + number + ".test", 80, "", "GET", "/", "allow", "web", "", false, 1, 2, 3);
  }

  /// As one life of a control plane hears of it.
  private void record(String gateway, boolean repeated, long... numbers) throws Exception {
    try (FlowLog log = new FlowLog(world.store, world.clock, sandbox)) {
      for (long number : numbers) {
        log.record(
            flow(number), new Delivery(gateway, number, repeated, () -> recorded.add(number)));
      }
      log.flush(Duration.ofSeconds(20));
    }
  }

  private List<String> logged() {
    return world.events(sandbox, "egress.flow").stream()
        .map(event -> event.data().path("id").asText())
        .toList();
  }

  @AfterEach
  void close() {
    world.close();
  }

  @Test
  void saysOfEachFlowOnceItIsDurable() throws Exception {
    record("gw1", false, 1, 2, 5);
    assertThat(logged()).containsExactly("gw1-1", "gw1-2", "gw1-5");
    assertThat(recorded).containsExactly(1L, 2L, 5L);
  }

  /// kill -9 between the commit and its acknowledgement, and before the commit.
  @Test
  void recordsAFlowThatComesAgainOnlyWhereItIsNotInTheLog() throws Exception {
    record("gw1", false, 1, 2);
    recorded.clear();
    record("gw1", true, 1, 2, 3);
    assertThat(logged()).containsExactly("gw1-1", "gw1-2", "gw1-3");
    assertThat(recorded).as("the gateway may forget all of them").containsExactly(1L, 2L, 3L);
  }

  @Test
  void tellsTheFlowsOfTwoGatewaysApart() throws Exception {
    record("gw1", false, 7);
    record("gw2", true, 3);
    record("gw1", true, 7, 8);
    assertThat(logged()).containsExactly("gw1-7", "gw2-3", "gw1-8");
  }

  @Test
  void findsAFlowBehindThousandsOfOtherEvents() throws Exception {
    record("gw1", false, 1);
    for (int i = 0; i < 1_200; i++) {
      world.store.commit(
          new Commit(
              sandbox,
              List.of(
                  new Change.AppendEvent(
                      Events.flow(world.clock.instant(), Optional.empty(), flow(i))))));
    }
    record("gw1", true, 1);
    assertThat(logged().stream().filter(id -> id.equals("gw1-1"))).hasSize(1);
  }

  @Test
  void saysNothingOfWhatItCouldNotRecord() throws Exception {
    world.store.unavailable(true);
    try (FlowLog log = new FlowLog(world.store, world.clock, sandbox)) {
      log.record(flow(1), new Delivery("gw1", 1, false, () -> recorded.add(1L)));
      log.flush(Duration.ofMillis(300));
      assertThat(recorded).isEmpty();
      world.store.unavailable(false);
      log.flush(Duration.ofSeconds(20));
      assertThat(recorded).containsExactly(1L);
    }
  }
}
