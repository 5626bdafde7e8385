package dev.foredeck.store.embedded;

import java.io.IOException;
import java.net.BindException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.locks.LockSupport;
import java.util.random.RandomGenerator;
import java.util.stream.Stream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// A durable PostgreSQL in a folder of ours. It outlives this process when this process is killed,
/// and is adopted by the next; it is started again when it dies while we run. Nothing that it
/// acknowledged is lost either way: `fsync`, `synchronous_commit` and `full_page_writes` stay on.
///
/// Threading: [#start] returns a server that one watching thread of ours looks after until
/// [#close] or [#detach]; both may be called by any thread, and the first call counts. A lock on
/// the folder's `lock` file keeps a second control plane out.
///
///     DIR/lock        held while we run
///     DIR/18.6/       the unpacked PostgreSQL
///     DIR/cluster/    the data, PostgreSQL's own
///     DIR/log/        what the server says: a file a weekday, cut at a size
///     DIR/password    of its only user, for us alone
///     DIR/port        it listens on, at 127.0.0.1 only
public final class EmbeddedPostgres implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(EmbeddedPostgres.class);

  public static final String USER = "foredeck";

  private static final String DATABASE = "foredeck";

  /// Below the range from which the kernel takes ports of outgoing connections, so that none of
  /// those takes ours while the server restarts.
  private static final int FIRST_PORT = 20_000;

  private static final int LAST_PORT = 32_000;
  private static final int PORT_ATTEMPTS = 20;

  private static final long MAX_LOG_BYTES = 16L << 20;
  private static final Duration WATCH_EVERY = Duration.ofMillis(100);
  private static final Duration MAX_BACKOFF = Duration.ofSeconds(5);

  /// Children of a killed server end by themselves when they notice; those that wait for a disk or
  /// a lock may not.
  private static final Duration CHILDREN_END_WITHIN = Duration.ofSeconds(5);

  private static final Set<PosixFilePermission> OWNER_ONLY =
      PosixFilePermissions.fromString("rw-------");

  private final Path cluster;
  private final Path logs;
  private final Path binaries;
  private final ServerAccount account;
  private final String password;
  private final int port;
  private final Duration timeout;
  private final FileChannel lockFile;
  private final boolean adopted;
  private final Object state = new Object();
  private Postmaster postmaster;
  private boolean ended;

  private EmbeddedPostgres(
      Path cluster,
      Path logs,
      Path binaries,
      ServerAccount account,
      String password,
      Duration timeout,
      FileChannel lockFile,
      boolean adopted,
      Postmaster postmaster) {
    this.cluster = cluster;
    this.logs = logs;
    this.binaries = binaries;
    this.account = account;
    this.password = password;
    this.port = postmaster.port();
    this.timeout = timeout;
    this.lockFile = lockFile;
    this.adopted = adopted;
    this.postmaster = postmaster;
  }

  /// Starts the server of a folder, or adopts the one that runs there.
  ///
  /// @param folder ours alone; made where it is not there
  /// @param random for the password and the port
  /// @param timeout for the server's start, crash recovery included
  /// @throws IOException whose message says what to do
  public static EmbeddedPostgres start(Path folder, RandomGenerator random, Duration timeout)
      throws IOException {
    Path home = folder.toAbsolutePath().normalize();
    makeFolder(home);
    // PostgreSQL's own files name the real path.
    home = home.toRealPath();
    FileChannel lockFile = lock(home);
    try {
      ServerAccount account = ServerAccount.ofThisProcess();
      account.checkReaches(home);
      removeHalves(home);
      Path binaries = PostgresBinaries.unpack(home, random.nextLong() >>> 1);
      String password = password(home, random);
      Path cluster = home.resolve("cluster");
      Path logs = home.resolve("log");
      if (!Files.exists(cluster)) {
        initialize(home, binaries, cluster, account, password, random);
      }
      checkVersion(cluster);
      makeFolder(logs);
      account.giveToServer(logs);
      Optional<Postmaster> found = settled(cluster, timeout);
      Postmaster running =
          found.isPresent()
              ? found.get()
              : startOnSomePort(home, cluster, logs, binaries, account, random, timeout);
      EmbeddedPostgres server =
          new EmbeddedPostgres(
              cluster,
              logs,
              binaries,
              account,
              password,
              timeout,
              lockFile,
              found.isPresent(),
              running);
      try {
        server.createDatabase();
      } catch (IOException e) {
        if (!found.isPresent()) {
          server.stop();
        }
        throw e;
      }
      Thread.ofPlatform().daemon().name("postgres-watch").start(server::watch);
      LOG.info(
          "{} PostgreSQL {} (pid {}) at 127.0.0.1:{}",
          server.adopted ? "adopted" : "started",
          PostgresBinaries.VERSION,
          running.pid(),
          running.port());
      return server;
    } catch (IOException | RuntimeException e) {
      lockFile.close();
      throw e;
    }
  }

  /// `jdbc:postgresql://127.0.0.1:<port>/foredeck`, the same for this object's whole life.
  public String jdbcUrl() {
    return url(DATABASE);
  }

  public String password() {
    return password;
  }

  /// Whether the server was running before us.
  public boolean adopted() {
    return adopted;
  }

  /// The server's process id, another after each restart.
  public long pid() {
    synchronized (state) {
      return postmaster.pid();
    }
  }

  /// Stops the server in order. Sessions that are open are cut, their transactions rolled back.
  @Override
  public void close() {
    synchronized (state) {
      if (ended) {
        return;
      }
      ended = true;
      try {
        stop();
      } catch (IOException e) {
        // The data is safe: the next start recovers.
        LOG.warn("PostgreSQL did not stop in order", e);
      } finally {
        release();
      }
    }
  }

  /// Leaves the server running for the next process to adopt.
  public void detach() {
    synchronized (state) {
      if (!ended) {
        ended = true;
        release();
      }
    }
  }

  private void release() {
    try {
      lockFile.close();
    } catch (IOException e) {
      LOG.warn("cannot release the lock of {}", cluster.getParent(), e);
    }
  }

  private void stop() throws IOException {
    if (Postmaster.find(cluster).isEmpty()) {
      return;
    }
    List<String> stopping =
        List.of(
            binaries.resolve("bin/pg_ctl").toString(),
            "stop",
            "--pgdata=" + cluster,
            "--mode=fast",
            "--wait",
            "--timeout=" + timeout.toSeconds());
    Commands.run(account.asServer(stopping), timeout.plusSeconds(5));
  }

  private void watch() {
    Duration backoff = WATCH_EVERY;
    while (true) {
      LockSupport.parkNanos(backoff.toNanos());
      synchronized (state) {
        if (ended) {
          return;
        }
        if (postmaster.alive()) {
          backoff = WATCH_EVERY;
          cutLogs();
          continue;
        }
        LOG.error("PostgreSQL (pid {}) is gone; starting it again", postmaster.pid());
        try {
          Optional<Postmaster> found = settled(cluster, timeout);
          postmaster =
              found.isPresent()
                  ? found.get()
                  : startServer(cluster, logs, binaries, account, port, timeout);
          LOG.info("started PostgreSQL again (pid {})", postmaster.pid());
          backoff = WATCH_EVERY;
        } catch (IOException | RuntimeException e) {
          // Whatever it was: a watch that ends leaves a dead server dead.
          Duration twice = backoff.multipliedBy(2);
          backoff = twice.compareTo(MAX_BACKOFF) < 0 ? twice : MAX_BACKOFF;
          LOG.error("cannot start PostgreSQL; trying again in {}", backoff, e);
        }
      }
    }
  }

  /// The server rotates by the weekday only; a flood within a day is cut here. It writes with
  /// append, so cutting leaves no hole.
  private void cutLogs() {
    try (Stream<Path> files = Files.list(logs)) {
      for (Path file : (Iterable<Path>) files::iterator) {
        if (Files.isRegularFile(file) && Files.size(file) > MAX_LOG_BYTES) {
          FileChannel.open(file, StandardOpenOption.WRITE).truncate(0).close();
        }
      }
    } catch (IOException | RuntimeException e) {
      LOG.debug("cannot look after the database's log files", e);
    }
  }

  // Making the folder.

  private static void makeFolder(Path folder) throws IOException {
    if (!Files.isDirectory(folder)) {
      Files.createDirectories(folder);
      // Passing through is all that the server's user needs.
      Files.setPosixFilePermissions(folder, PosixFilePermissions.fromString("rwx--x--x"));
    }
  }

  private static FileChannel lock(Path home) throws IOException {
    FileChannel channel =
        FileChannel.open(
            home.resolve("lock"),
            Set.of(StandardOpenOption.CREATE, StandardOpenOption.WRITE),
            PosixFilePermissions.asFileAttribute(OWNER_ONLY));
    try {
      FileLock lock = channel.tryLock();
      if (lock != null) {
        return channel;
      }
    } catch (OverlappingFileLockException _) {
      // Held by this very process: the same answer.
    }
    channel.close();
    throw new IOException("another control plane uses the database in " + home);
  }

  private static void removeHalves(Path home) throws IOException {
    List<Path> halves;
    try (Stream<Path> entries = Files.list(home)) {
      halves =
          entries
              .filter(entry -> {
                String name = String.valueOf(entry.getFileName());
                return name.startsWith(".unpacking-") || name.startsWith(".initializing-");
              })
              .toList();
    }
    for (Path half : halves) {
      PostgresBinaries.removeTree(half);
    }
  }

  private static String password(Path home, RandomGenerator random) throws IOException {
    Path file = home.resolve("password");
    if (!Files.exists(file)) {
      byte[] secret = new byte[32];
      random.nextBytes(secret);
      writeOwn(file, HexFormat.of().formatHex(secret));
    }
    return Files.readString(file, StandardCharsets.UTF_8).strip();
  }

  /// Whole or not there, for us alone from the first moment.
  private static void writeOwn(Path file, String text) throws IOException {
    Path half = file.resolveSibling(file.getFileName() + ".new");
    Files.deleteIfExists(half);
    try (FileChannel channel =
        FileChannel.open(
            half,
            Set.of(StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE),
            PosixFilePermissions.asFileAttribute(OWNER_ONLY))) {
      channel.write(StandardCharsets.UTF_8.encode(text));
      channel.force(true);
    }
    Files.move(half, file, StandardCopyOption.ATOMIC_MOVE);
  }

  private static void initialize(
      Path home,
      Path binaries,
      Path cluster,
      ServerAccount account,
      String password,
      RandomGenerator random)
      throws IOException {
    Path half = home.resolve(".initializing-" + Long.toHexString(random.nextLong() >>> 1));
    Files.createDirectory(
        half, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
    try {
      Path secret = half.resolve("password");
      writeOwn(secret, password);
      account.giveToInitializer(half);
      Path made = half.resolve("cluster");
      Commands.run(
          account.asInitializer(
              List.of(
                  binaries.resolve("bin/initdb").toString(),
                  "--pgdata=" + made,
                  "--username=" + USER,
                  "--pwfile=" + secret,
                  "--auth=scram-sha-256",
                  "--encoding=UTF8",
                  "--locale=C",
                  "--data-checksums")),
          Duration.ofMinutes(2));
      account.giveToServer(made);
      Files.move(made, cluster, StandardCopyOption.ATOMIC_MOVE);
    } catch (FileAlreadyExistsException e) {
      throw new IOException("the folder of the database was made by somebody else meanwhile", e);
    } finally {
      PostgresBinaries.removeTree(half);
    }
  }

  private static void checkVersion(Path cluster) throws IOException {
    String version =
        Files.readString(cluster.resolve("PG_VERSION"), StandardCharsets.UTF_8).strip();
    if (!version.equals(Integer.toString(PostgresBinaries.MAJOR))) {
      throw new IOException(
          "the data in "
              + cluster
              + " is of PostgreSQL "
              + version
              + " and this Foredeck brings "
              + PostgresBinaries.MAJOR
              + ": dump and restore it, or start the Foredeck that made it");
    }
  }

  // Starting.

  /// The server that runs, when it is ready; waits for one that is between states.
  private static Optional<Postmaster> settled(Path cluster, Duration timeout) throws IOException {
    long until = System.nanoTime() + timeout.toNanos();
    while (true) {
      Optional<Postmaster> found = Postmaster.find(cluster);
      if (found.isEmpty() || found.get().ready()) {
        return found;
      }
      if (System.nanoTime() > until) {
        throw new IOException(
            "the PostgreSQL that runs in "
                + cluster
                + " (pid "
                + found.get().pid()
                + ") did not become ready within "
                + timeout);
      }
      LockSupport.parkNanos(Duration.ofMillis(20).toNanos());
    }
  }

  private static Postmaster startOnSomePort(
      Path home,
      Path cluster,
      Path logs,
      Path binaries,
      ServerAccount account,
      RandomGenerator random,
      Duration timeout)
      throws IOException {
    Path portFile = home.resolve("port");
    int kept = keptPort(portFile);
    for (int attempt = 0; attempt < PORT_ATTEMPTS; attempt++) {
      int port = attempt == 0 && kept > 0 ? kept : random.nextInt(FIRST_PORT, LAST_PORT);
      if (!free(port)) {
        continue;
      }
      writeOwn(portFile, Integer.toString(port));
      try {
        return startServer(cluster, logs, binaries, account, port, timeout);
      } catch (IOException e) {
        if (free(port)) {
          throw e;
        }
        LOG.info("port {} was taken meanwhile", port);
      }
    }
    throw new IOException("found no free port for PostgreSQL at 127.0.0.1");
  }

  private static int keptPort(Path portFile) throws IOException {
    if (!Files.exists(portFile)) {
      return 0;
    }
    try {
      return Integer.parseInt(Files.readString(portFile, StandardCharsets.UTF_8).strip());
    } catch (NumberFormatException _) {
      return 0;
    }
  }

  private static boolean free(int port) throws IOException {
    try (ServerSocket socket = new ServerSocket()) {
      socket.setReuseAddress(true);
      socket.bind(new InetSocketAddress(InetAddress.getByAddress(new byte[] {127, 0, 0, 1}), port));
      return true;
    } catch (BindException _) {
      return false;
    }
  }

  private static Postmaster startServer(
      Path cluster, Path logs, Path binaries, ServerAccount account, int port, Duration timeout)
      throws IOException {
    endChildren(cluster);
    // No process of the folder lives and we hold its lock. Left in place, the file would stop the
    // server for as long as nobody reaps the killed one: PostgreSQL takes a zombie for alive.
    Files.deleteIfExists(cluster.resolve("postmaster.pid"));
    writeConfiguration(cluster, logs, port, account);
    Commands.run(
        account.asServer(
            List.of(
                binaries.resolve("bin/pg_ctl").toString(),
                "start",
                "--pgdata=" + cluster,
                "--log=" + logs.resolve("start.log"),
                "--silent",
                "--wait",
                "--timeout=" + timeout.toSeconds())),
        timeout.plusSeconds(5));
    return Postmaster.find(cluster)
        .filter(Postmaster::ready)
        .orElseThrow(
            () -> new IOException("PostgreSQL ended as soon as it had started: see " + logs));
  }

  /// Waits for what a killed server left: as long as a child lives, shared memory is in use and
  /// PostgreSQL refuses to start.
  private static void endChildren(Path cluster) throws IOException {
    long patience = System.nanoTime() + CHILDREN_END_WITHIN.toNanos();
    while (true) {
      List<Long> left = Postmaster.processesOf(cluster);
      if (left.isEmpty()) {
        return;
      }
      if (System.nanoTime() > patience) {
        LOG.warn("processes {} of the dead PostgreSQL do not end; ending them", left);
        left.forEach(pid -> ProcessHandle.of(pid).ifPresent(ProcessHandle::destroyForcibly));
        patience = System.nanoTime() + CHILDREN_END_WITHIN.toNanos();
      }
      LockSupport.parkNanos(Duration.ofMillis(20).toNanos());
    }
  }

  /// Written at every start: the server's settings are ours. Nothing that holds a value of a
  /// statement is logged, because values may be secret.
  private static void writeConfiguration(Path cluster, Path logs, int port, ServerAccount account)
      throws IOException {
    String settings =
        """
        # Written by Foredeck at every start.
        listen_addresses = '127.0.0.1'
        port = %d
        unix_socket_directories = ''
        max_connections = 50
        password_encryption = 'scram-sha-256'
        fsync = on
        synchronous_commit = on
        full_page_writes = on
        wal_level = minimal
        max_wal_senders = 0
        max_wal_size = '1GB'
        shared_buffers = '64MB'
        work_mem = '4MB'
        maintenance_work_mem = '32MB'
        dynamic_shared_memory_type = posix
        io_method = sync
        jit = off
        timezone = 'UTC'
        lc_messages = 'C'
        client_connection_check_interval = '5s'
        logging_collector = on
        log_directory = '%s'
        log_filename = 'postgresql-%%a.log'
        log_truncate_on_rotation = on
        log_rotation_age = '1d'
        log_rotation_size = 0
        log_timezone = 'UTC'
        log_line_prefix = '%%m [%%p] '
        log_error_verbosity = terse
        log_min_error_statement = panic
        log_statement = 'none'
        log_parameter_max_length = 0
        log_parameter_max_length_on_error = 0
        """
            .formatted(port, logs.toString().replace("'", "''"));
    replace(cluster.resolve("postgresql.conf"), settings, account);
    // What ALTER SYSTEM may have left.
    replace(cluster.resolve("postgresql.auto.conf"), "# Not used by Foredeck.\n", account);
    replace(
        cluster.resolve("pg_hba.conf"),
        "# Written by Foredeck at every start.\nhost all all 127.0.0.1/32 scram-sha-256\n",
        account);
  }

  private static void replace(Path file, String text, ServerAccount account) throws IOException {
    Path half = file.resolveSibling(file.getFileName() + ".new");
    Files.deleteIfExists(half);
    writeOwn(half, text);
    account.giveToServer(half);
    Files.move(half, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
  }

  // The database in it.

  private String url(String database) {
    return "jdbc:postgresql://127.0.0.1:" + port + "/" + database;
  }

  private void createDatabase() throws IOException {
    try (Connection connection =
            DriverManager.getConnection(
                url("postgres") + "?connectTimeout=10&socketTimeout=60", USER, password);
        Statement statement = connection.createStatement()) {
      boolean there;
      try (ResultSet found =
          statement.executeQuery("select 1 from pg_database where datname = '" + DATABASE + "'")) {
        there = found.next();
      }
      if (!there) {
        statement.execute("create database " + DATABASE);
      }
    } catch (SQLException e) {
      throw new IOException(
          "PostgreSQL at 127.0.0.1:" + port + " runs but does not let us in: " + e.getMessage(), e);
    }
  }
}
