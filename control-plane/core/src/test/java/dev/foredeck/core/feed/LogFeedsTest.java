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
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.kit.ControlPlane;
import dev.foredeck.core.kit.World;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.TenantCursor;
import dev.foredeck.core.store.TenantEvent;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
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
      try (Feeds.Feed<Event> feed = world.plane().feeds.open(operation, sandbox.id(), cursor)) {
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
    try (Feeds.Feed<Event> feed =
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
    try (Feeds.Feed<Event> feed = world.plane().feeds.open(operation, sandbox.id(), 0)) {
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
    Feeds.Feed<Event> one = feeds.open(operation, sandbox.id(), 0);
    Feeds.Feed<Event> two = feeds.open(operation, sandbox.id(), 0);
    assertThat(problem(() -> feeds.open(operation, sandbox.id(), 0)).code())
        .isEqualTo("feed-quota");
    one.close();
    one.close();
    try (Feeds.Feed<Event> _ = feeds.open(operation, sandbox.id(), 0)) {
      assertThat(problem(() -> feeds.open(operation, sandbox.id(), 0)).code())
          .isEqualTo("feed-quota");
    }
    two.close();
  }

  @Test
  void aReservedPlaceIsTheReadersUntilItClosesAndIsGivenBackWhereThereWasNone() {
    Sandbox sandbox = world.ready();
    LogFeeds feeds = world.plane().feeds;
    Feeds.Feed<Event> one = feeds.open(operation, sandbox.id(), 0);
    Feeds.Feed<TenantEvent> two;
    try (Feeds.Place place = feeds.reserve(operation)) {
      assertThat(problem(() -> feeds.reserve(operation)).code()).isEqualTo("feed-quota");
      assertThat(problem(() -> feeds.openTenant(operation, Optional.empty())).code())
          .isEqualTo("feed-quota");
      assertThat(problem(() -> place.open(new Id("sbx9999999999999999"), 0)))
          .isInstanceOf(Problem.NotFound.class);
    }
    two = feeds.openTenant(operation, Optional.empty());
    assertThat(problem(() -> feeds.reserve(operation)).code()).isEqualTo("feed-quota");
    one.close();
    two.close();
    two.close();
    Feeds.Feed<Event> three;
    try (Feeds.Place place = feeds.reserve(operation)) {
      three = place.open(sandbox.id(), 0);
    }
    try (Feeds.Place _ = feeds.reserve(operation)) {
      assertThat(problem(() -> feeds.reserve(operation)).code()).isEqualTo("feed-quota");
    }
    three.close();
  }

  @Test
  void aCallsReaderBeginsAtItsFirstEvent() throws Exception {
    Sandbox sandbox = world.ready();
    world.ended(world.start(sandbox.id(), "echo", "before").id());
    long before = world.store.lastSeq(sandbox.id());
    Call call = world.start(sandbox.id(), "echo", "x");
    try (Feeds.Place place = world.plane().feeds.reserve(operation);
        Feeds.Feed<Event> feed = place.openCall(sandbox.id(), call.id())) {
      Event first = feed.next(Duration.ofSeconds(5)).getFirst();
      assertThat(first.seq()).isEqualTo(before + 1);
      assertThat(first.call()).contains(call.id());
      assertThat(first.type()).isEqualTo("call.requested");
    }
  }

  @Test
  void aTenantsReaderSeesAllItsSandboxesAndComesBack() throws Exception {
    Sandbox one = world.ready();
    Sandbox two = world.ready();
    List<TenantEvent> seen = new ArrayList<>();
    Optional<TenantCursor> cursor = Optional.empty();
    world.ended(world.start(one.id(), "echo", "x").id());
    world.ended(world.start(two.id(), "echo", "x").id());
    long all = world.store.lastSeq(one.id()) + world.store.lastSeq(two.id());
    while (seen.size() < all) {
      try (Feeds.Feed<TenantEvent> feed = world.plane().feeds.openTenant(operation, cursor)) {
        seen.addAll(feed.next(Duration.ofSeconds(5)));
        cursor = Optional.of(seen.getLast().cursor());
        assertThat(feed.finished()).isFalse();
      }
    }
    for (Sandbox sandbox : List.of(one, two)) {
      assertThat(
              seen.stream()
                  .filter(e -> e.event().sandbox().equals(sandbox.id()))
                  .map(e -> e.event().seq()))
          .isEqualTo(LongStream.rangeClosed(1, world.store.lastSeq(sandbox.id())).boxed().toList());
    }
    Feeds feeds = world.plane().feeds;
    assertThat(feeds.last(operation)).isEqualTo(cursor);
    try (Feeds.Feed<TenantEvent> feed = feeds.openTenant(operation, cursor)) {
      assertThat(feed.next(Duration.ofMillis(10))).isEmpty();
      world.start(two.id(), "true");
      assertThat(feed.next(Duration.ofSeconds(10)).getFirst().event().type())
          .isEqualTo("call.requested");
    }
    TenantCursor wrong = new TenantCursor(1L << 40, one.id(), 1, seen.getFirst().event().time());
    assertThat(problem(() -> feeds.openTenant(operation, Optional.of(wrong))).code())
        .isEqualTo("cursor-lost");
    assertThat(problem(() -> feeds.tenantPage(operation, Optional.of(wrong), Set.of(), 5)).code())
        .isEqualTo("cursor-lost");
  }

  @Test
  void aTenantsPageOfSomeTypesMovesOnOverTheRest() {
    Sandbox sandbox = world.ready();
    for (int i = 0; i < 3; i++) {
      world.ended(world.start(sandbox.id(), "true").id());
    }
    Feeds feeds = world.plane().feeds;
    Set<String> ended = Set.of("call.ended");
    Feeds.TenantLogPage two = feeds.tenantPage(operation, Optional.empty(), ended, 2);
    assertThat(two.events())
        .extracting(e -> e.event().type())
        .hasSize(2)
        .containsOnly("call.ended");
    assertThat(two.next()).contains(two.events().getLast().cursor());
    assertThat(feeds.tenantPage(operation, two.next(), ended, 2).events()).hasSize(1);
    Feeds.TenantLogPage none =
        feeds.tenantPage(operation, Optional.empty(), Set.of("file.changed"), 2);
    assertThat(none.events()).isEmpty();
    assertThat(none.next()).isEqualTo(feeds.last(operation)).isPresent();
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
