package dev.foredeck.core.kit;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.core.egress.EgressPath;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/// One control plane's driver, which dies with it.
public final class MortalDriver implements Driver {
  private final FakeDriver inner;
  private final Mortality mortality;

  public MortalDriver(FakeBackend backend, Mortality mortality) {
    this.inner = new FakeDriver(backend, mortality);
    this.mortality = mortality;
  }

  public void cutConnections() {
    inner.cutConnections();
  }

  @Override
  public String name() {
    return inner.name();
  }

  @Override
  public List<String> probe(Duration timeout) {
    return inner.probe(timeout);
  }

  @Override
  public List<String> templates() {
    return inner.templates();
  }

  private interface Verb {
    void run() throws DriverException;
  }

  private void undivided(Verb verb) throws DriverException {
    DriverException failure =
        mortality.undivided(() -> {
          try {
            verb.run();
            return new DriverException.Failed("");
          } catch (DriverException e) {
            return e;
          }
        });
    if (!failure.getMessage().isEmpty()) {
      throw failure;
    }
  }

  @Override
  public void launch(LaunchSpec spec, Duration timeout) throws DriverException {
    undivided(() -> inner.launch(spec, timeout));
  }

  @Override
  public void destroy(Id sandbox, Duration timeout) throws DriverException {
    undivided(() -> inner.destroy(sandbox, timeout));
  }

  @Override
  public Optional<BackendState> inspect(Id sandbox, Duration timeout) throws DriverException {
    return inner.inspect(sandbox, timeout);
  }

  @Override
  public List<BackendState> list(Duration timeout) throws DriverException {
    return inner.list(timeout);
  }

  @Override
  public AgentConnection connect(Id sandbox, String token, Duration timeout)
      throws DriverException {
    return inner.connect(sandbox, token, timeout);
  }

  @Override
  public Optional<EgressPath> egressPath(Id sandbox, String token) {
    return inner.egressPath(sandbox, token);
  }

  @Override
  public void close() {}
}
