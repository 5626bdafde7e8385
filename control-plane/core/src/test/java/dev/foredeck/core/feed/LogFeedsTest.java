package dev.foredeck.core.feed;

import static dev.foredeck.core.kit.ControlPlane.OPERATION;
import static dev.foredeck.core.kit.World.problem;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.Keys;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Principal;
import dev.foredeck.core.Problem;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.Role;
import dev.foredeck.core.kit.ControlPlane;
import dev.foredeck.core.kit.World;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Event;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.stream.LongStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
final class LogFeedsTest {
  private final World world = new World();
  private final Keys.Created created;
  private final Operation operation;

  LogFeedsTest() {
    world.limits = World.limits(Duration.ofSeconds(1));
    created = world.plane().keys.create(ControlPlane.TENANT, "reader", Role.OPERATOR);
    Principal principal = world.plane().keys.authenticate(created.secret());
    operation = new Operation(principal, "trace", Optional.empty());
  }

  @AfterEach
  void close() {
    world.close();
  }

  @Test
  void aReaderThatComesBackGoesOnWhereItWas() throws Exception {
    Sandbox sandbox = world.ready();
    List<Long> seqs = new ArrayList<>();
    long cursor = 0;
    world.ended(world.start(sandbox.id(), "echo", "x").id());
    world.plane().sandboxes.destroy(operation, sandbox.id());
    boolean finished = false;
    while (!finished) {
      try (Feeds.Feed feed = world.plane().feeds.open(operation, sandbox.id(), cursor)) {
        for (Event event : feed.next(Duration.ofSeconds(5))) {
          seqs.add(event.seq());
          cursor = event.seq();
        }
        finished = feed.finished();
      }
    }
    assertThat(seqs)
        .isEqualTo(LongStream.rangeClosed(1, world.store.lastSeq(sandbox.id())).boxed().toList());
  }

  @Test
  void aReaderIsWokenAndAnIdleOneGetsItsMomentForAHeartbeat() throws Exception {
    Sandbox sandbox = world.ready();
    try (Feeds.Feed feed =
        world.plane().feeds.open(operation, sandbox.id(), world.store.lastSeq(sandbox.id()))) {
      assertThat(feed.next(Duration.ofMillis(10))).isEmpty();
      assertThat(feed.finished()).isFalse();
      world.start(sandbox.id(), "true");
      assertThat(feed.next(Duration.ofSeconds(10)).getFirst().type()).isEqualTo("call.requested");
    }
  }

  @Test
  void aRevokedKeyCutsItsOpenFeeds() throws Exception {
    Sandbox sandbox = world.ready();
    try (Feeds.Feed feed = world.plane().feeds.open(operation, sandbox.id(), 0)) {
      assertThat(feed.next(Duration.ofSeconds(5))).isNotEmpty();
      world.plane().keys.revoke(operation, created.key().id());
      assertThatThrownBy(
              () -> {
                while (true) {
                  feed.next(Duration.ofSeconds(5));
                }
              })
          .isInstanceOfSatisfying(
              ProblemException.class,
              e -> assertThat(e.problem()).isInstanceOf(Problem.Unauthenticated.class));
    }
    assertThat(problem(() -> world.plane().keys.authenticate(created.secret())))
        .isInstanceOf(Problem.Unauthenticated.class);
  }

  @Test
  void feedsAreLimitedAndAClosedOneFreesItsPlaceOnce() {
    Sandbox sandbox = world.ready();
    LogFeeds feeds = world.plane().feeds;
    Feeds.Feed one = feeds.open(operation, sandbox.id(), 0);
    Feeds.Feed two = feeds.open(operation, sandbox.id(), 0);
    assertThat(problem(() -> feeds.open(operation, sandbox.id(), 0)).code())
        .isEqualTo("feed-quota");
    one.close();
    one.close();
    try (Feeds.Feed _ = feeds.open(operation, sandbox.id(), 0)) {
      assertThat(problem(() -> feeds.open(operation, sandbox.id(), 0)).code())
          .isEqualTo("feed-quota");
    }
    two.close();
  }

  @Test
  void aStrangerFindsNoLog() {
    Sandbox sandbox = world.ready();
    Operation stranger =
        new Operation(
            new Principal(
                new Id("ten9999999999999999"),
                new Id("key9999999999999999"),
                "mallory",
                Role.OPERATOR),
            "trace",
            Optional.empty());
    assertThat(problem(() -> world.plane().feeds.open(stranger, sandbox.id(), 0)))
        .isInstanceOf(Problem.NotFound.class);
    assertThat(problem(() -> world.plane().feeds.page(stranger, sandbox.id(), 0, 10)))
        .isInstanceOf(Problem.NotFound.class);
  }

  @Test
  void keysAreManagedByOperatorsOfTheTenant() {
    Keys keys = world.plane().keys;
    assertThat(problem(() -> keys.create(OPERATION, "x", Role.OPERATOR)))
        .isInstanceOf(Problem.Forbidden.class);
    assertThat(problem(() -> keys.list(OPERATION))).isInstanceOf(Problem.Forbidden.class);
    assertThat(problem(() -> keys.revoke(OPERATION, created.key().id())))
        .isInstanceOf(Problem.Forbidden.class);
    assertThat(problem(() -> keys.revoke(operation, new Id("key9999999999999999"))))
        .isInstanceOf(Problem.NotFound.class);
    Keys.Created developer = keys.create(operation, "dev", Role.DEVELOPER);
    assertThat(developer.secret()).startsWith("fdk_").hasSizeGreaterThan(43);
    assertThat(developer.toString()).doesNotContain(developer.secret());
    assertThat(keys.authenticate(developer.secret()).role()).isEqualTo(Role.DEVELOPER);
    assertThat(problem(() -> keys.authenticate("fdk_wrong")))
        .isInstanceOf(Problem.Unauthenticated.class);
    keys.revoke(operation, developer.key().id());
    keys.revoke(operation, developer.key().id());
  }
}
