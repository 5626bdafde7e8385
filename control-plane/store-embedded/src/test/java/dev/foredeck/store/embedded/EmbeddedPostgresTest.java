package dev.foredeck.store.embedded;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.SecureRandom;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// One folder, started many times: each case begins with a stopped server.
final class EmbeddedPostgresTest {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);

  private static Path parent = Path.of("/");
  private static Path folder = Path.of("/");

  @BeforeAll
  static void makeFolder() throws IOException {
    parent = Files.createTempDirectory("foredeck-pg");
    // As root the server's user must pass through.
    Files.setPosixFilePermissions(parent, PosixFilePermissions.fromString("rwx--x--x"));
    folder = parent.resolve("postgres");
  }

  @AfterAll
  static void removeFolder() throws IOException {
    PostgresBinaries.removeTree(parent);
  }

  private static EmbeddedPostgres start() throws IOException {
    return EmbeddedPostgres.start(folder, new SecureRandom(), TIMEOUT);
  }

  private static Connection connect(EmbeddedPostgres server) throws SQLException {
    return DriverManager.getConnection(server.jdbcUrl(), EmbeddedPostgres.USER, server.password());
  }

  private static String ask(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(sql)) {
      rows.next();
      return rows.getString(1);
    }
  }

  @Test
  void isDurablePrivateAndOfTheVersionThatWeSay() throws Exception {
    try (EmbeddedPostgres server = start();
        Connection connection = connect(server)) {
      assertThat(ask(connection, "show server_version")).isEqualTo(PostgresBinaries.VERSION);
      for (String setting : new String[] {"fsync", "synchronous_commit", "full_page_writes"}) {
        assertThat(ask(connection, "show " + setting)).as(setting).isEqualTo("on");
      }
      assertThat(ask(connection, "show data_checksums")).isEqualTo("on");
      assertThat(ask(connection, "show server_encoding")).isEqualTo("UTF8");
      assertThat(ask(connection, "show listen_addresses")).isEqualTo("127.0.0.1");
      assertThat(ask(connection, "select datcollate from pg_database where datname = 'foredeck'"))
          .isEqualTo("C");
      assertThatThrownBy(
              () -> DriverManager.getConnection(server.jdbcUrl(), EmbeddedPostgres.USER, "wrong"))
          .isInstanceOf(SQLException.class);
      assertThat(Files.getPosixFilePermissions(folder.resolve("password")))
          .isEqualTo(PosixFilePermissions.fromString("rw-------"));
      assertThat(Files.getPosixFilePermissions(folder.resolve("cluster")))
          .isEqualTo(PosixFilePermissions.fromString("rwx------"));
      Object uid = Files.getAttribute(Path.of("/proc/" + server.pid()), "unix:uid");
      assertThat(uid).as("the server's user").isNotEqualTo(0);
    }
  }

  @Test
  void keepsDataAndPortOverAStop() throws Exception {
    String url;
    try (EmbeddedPostgres server = start();
        Connection connection = connect(server)) {
      url = server.jdbcUrl();
      execute(connection, "create table if not exists kept (n int)", "insert into kept values (1)");
    }
    try (EmbeddedPostgres server = start();
        Connection connection = connect(server)) {
      assertThat(server.jdbcUrl()).isEqualTo(url);
      assertThat(server.adopted()).isFalse();
      assertThat(ask(connection, "select count(*) from kept")).isEqualTo("1");
    }
  }

  private static void execute(Connection connection, String... updates) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      for (String update : updates) {
        statement.execute(update);
      }
    }
  }

  @Test
  void adoptsAServerThatOutlivedItsControlPlane() throws Exception {
    EmbeddedPostgres first = start();
    long pid = first.pid();
    first.detach();
    try (EmbeddedPostgres second = start();
        Connection connection = connect(second)) {
      assertThat(second.adopted()).isTrue();
      assertThat(second.pid()).isEqualTo(pid);
      assertThat(ask(connection, "select 1")).isEqualTo("1");
    }
    assertThat(Postmaster.processesOf(folder.resolve("cluster"))).isEmpty();
  }

  @Test
  void refusesASecondControlPlane() throws Exception {
    try (EmbeddedPostgres _ = start()) {
      assertThatThrownBy(EmbeddedPostgresTest::start)
          .isInstanceOf(IOException.class)
          .hasMessageContaining("another control plane");
    }
  }

  @Test
  void startsAgainWhenItsServerIsKilled() throws Exception {
    try (EmbeddedPostgres server = start()) {
      for (int round = 0; round < 3; round++) {
        long pid = server.pid();
        try (Connection connection = connect(server)) {
          execute(
              connection,
              "create table if not exists rounds (n int)",
              "insert into rounds values (1)");
          // Children linger while they hold a connection, and hold the shared memory.
          assertThat(ProcessHandle.of(pid).orElseThrow().destroyForcibly()).isTrue();
        }
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
        while (server.pid() == pid && System.nanoTime() < until) {
          LockSupport.parkNanos(1_000_000);
        }
        try (Connection connection = connect(server)) {
          assertThat(ask(connection, "select count(*) from rounds")).isEqualTo("" + (round + 1));
        }
      }
    }
  }

  @Test
  void startsOverAStalePidFile() throws Exception {
    EmbeddedPostgres first = start();
    first.detach();
    assertThat(ProcessHandle.of(first.pid()).orElseThrow().destroyForcibly()).isTrue();
    assertThat(folder.resolve("cluster/postmaster.pid")).exists();
    try (EmbeddedPostgres second = start();
        Connection connection = connect(second)) {
      assertThat(second.adopted()).isFalse();
      assertThat(ask(connection, "select 1")).isEqualTo("1");
    }
  }

  @Test
  void takesAnotherPortWhenItsOwnIsTaken() throws Exception {
    start().close();
    int port = Integer.parseInt(Files.readString(folder.resolve("port")).strip());
    try (ServerSocket _ =
            new ServerSocket(port, 1, InetAddress.getByAddress(new byte[] {127, 0, 0, 1}));
        EmbeddedPostgres server = start();
        Connection connection = connect(server)) {
      assertThat(server.jdbcUrl()).doesNotContain(":" + port + "/");
      assertThat(ask(connection, "select 1")).isEqualTo("1");
    }
  }

  @Test
  void settingsOfSomebodyElseDoNotOutliveAStart() throws Exception {
    try (EmbeddedPostgres server = start();
        Connection connection = connect(server)) {
      execute(connection, "alter system set fsync = off");
    }
    try (EmbeddedPostgres server = start();
        Connection connection = connect(server)) {
      assertThat(ask(connection, "show fsync")).isEqualTo("on");
    }
  }

  @Test
  void refusesDataOfAnotherVersion() throws Exception {
    start().close();
    Path version = folder.resolve("cluster/PG_VERSION");
    String was = Files.readString(version);
    try {
      Files.writeString(version, "12\n");
      assertThatThrownBy(EmbeddedPostgresTest::start)
          .isInstanceOf(IOException.class)
          .hasMessageContaining("PostgreSQL 12");
    } finally {
      Files.writeString(version, was);
    }
  }

  @Test
  void saysWhichFolderIsClosedToTheServersUser() throws Exception {
    Path closed = Files.createDirectory(parent.resolve("closed"));
    Files.setPosixFilePermissions(closed, PosixFilePermissions.fromString("rwx------"));
    if (Files.getAttribute(Path.of("/proc/self"), "unix:uid").equals(0)) {
      assertThatThrownBy(
              () -> EmbeddedPostgres.start(closed.resolve("pg"), new SecureRandom(), TIMEOUT))
          .isInstanceOf(IOException.class)
          .hasMessageContaining(closed.toString())
          .hasMessageContaining("chmod");
    }
  }
}
