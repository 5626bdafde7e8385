package dev.foredeck.benchmarks;

import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Principal;
import dev.foredeck.core.Resources;
import dev.foredeck.core.Role;
import dev.foredeck.core.gate.CallResult;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.gate.Recorder;
import dev.foredeck.core.gate.ToolCall;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.policy.Policy;
import dev.foredeck.policy.PolicyCompiler;
import dev.foredeck.store.DatabaseUrl;
import dev.foredeck.store.PostgresStore;
import dev.foredeck.store.embedded.EmbeddedPostgres;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.Statement;
import java.time.Clock;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// What the gate itself costs a call: the decision under the pack `default`, and its durable record
/// (row, `call.requested`, `call.decided`) in one commit; beside one bare insert and commit on the
/// same server.
final class GateCost {
  private static final int CALLS = 2000;

  private GateCost() {}

  static List<Samples> measure(Path folder) throws Exception {
    SecureRandom random = new SecureRandom();
    Clock clock = Clock.systemUTC();
    Ids ids = new Ids(clock, random);
    try (EmbeddedPostgres postgres =
            EmbeddedPostgres.start(folder.resolve("postgres"), random, Duration.ofMinutes(1));
        PostgresStore store =
            PostgresStore.open(
                new DatabaseUrl(postgres.jdbcUrl(), EmbeddedPostgres.USER, postgres.password()),
                random,
                clock)) {
      Policy policy = new PolicyCompiler(_ -> Optional.empty()).compile("default.yaml", pack());
      Sandbox sandbox = sandbox(ids, clock, policy);
      committed(
          store.commit(
              Commit.of(
                  sandbox.id(),
                  new Change.CreateSandbox(sandbox, List.of(), 10, 10),
                  new Change.MoveSandbox(
                      java.util.Set.of(Phase.REQUESTED),
                      Phase.READY,
                      "",
                      Optional.of("boot"),
                      clock.instant()))));
      Recorder recorder = new Recorder(clock, ids, Limits.DEFAULT);
      Principal principal = new Principal(sandbox.tenant(), ids.key(), "bench", Role.OPERATOR);
      ToolCall tool =
          new ToolCall.ProcessStart(
              List.of("python3", "train.py"), "/workspace", Map.of(), Optional.empty(), false);
      double[] millis = new double[CALLS];
      for (int i = -500; i < CALLS; i++) {
        long began = System.nanoTime();
        Recorder.Decided decided =
            recorder.decide(
                principal,
                policy,
                sandbox.id(),
                sandbox.expiresAt(),
                tool,
                false,
                List.of(),
                false);
        committed(store.commit(new Commit(sandbox.id(), decided.changes())));
        double took = (System.nanoTime() - began) / 1e6;
        if (i >= 0) {
          millis[i] = took;
        }
        Id call = decided.call().id();
        committed(
            store.commit(
                Commit.of(
                    sandbox.id(),
                    new Change.EndCall(
                        call,
                        new CallResult(
                            CallStatus.EXITED, 0, 0, "", 0, 0, 0, 0, clock.instant())))));
      }
      return List.of(
          new Samples("gate: decision and its durable record", millis), bareCommit(postgres));
    }
  }

  private static Samples bareCommit(EmbeddedPostgres postgres) throws Exception {
    try (Connection connection =
        DriverManager.getConnection(
            postgres.jdbcUrl(), EmbeddedPostgres.USER, postgres.password())) {
      try (Statement statement = connection.createStatement()) {
        statement.execute("create table bench (id bigserial primary key, body text)");
      }
      connection.setAutoCommit(false);
      try (PreparedStatement insert =
          connection.prepareStatement("insert into bench (body) values (?)")) {
        return Samples.measure(
            "baseline: one bare insert and commit on the same server",
            500,
            CALLS,
            () -> {
              insert.setString(1, "x".repeat(300));
              insert.executeUpdate();
              connection.commit();
            });
      }
    }
  }

  private static void committed(CommitResult result) {
    if (result instanceof CommitResult.Refused refused) {
      throw new IllegalStateException("refused: " + refused.refusal());
    }
  }

  private static Sandbox sandbox(Ids ids, Clock clock, Policy policy) {
    return new Sandbox(
        ids.sandbox(),
        ids.tenant(),
        "bench",
        "host",
        new Resources(1000, 1 << 30, 1 << 30, 256),
        policy.reference(),
        Map.of(),
        Map.of(),
        Optional.empty(),
        false,
        Phase.REQUESTED,
        "",
        "",
        clock.instant(),
        clock.instant().plusSeconds(3600),
        Optional.empty());
  }

  private static String pack() throws IOException {
    try (InputStream in =
        GateCost.class.getResourceAsStream("/dev/foredeck/policies/default.yaml")) {
      if (in == null) {
        throw new IOException("the policy library is not on the class path");
      }
      return new String(in.readAllBytes(), StandardCharsets.UTF_8);
    }
  }
}
