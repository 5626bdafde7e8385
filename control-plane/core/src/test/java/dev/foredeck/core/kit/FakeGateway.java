package dev.foredeck.core.kit;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.egress.EgressGateway;
import dev.foredeck.core.egress.EgressPath;
import java.io.IOException;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/// A gateway that only remembers for whom it is open.
public final class FakeGateway implements EgressGateway {
  private record Way(EgressRules rules, FlowRecorder flows) {}

  private final Map<Id, Way> ways = new ConcurrentHashMap<>();
  private final Map<Id, Flow> underWay = new ConcurrentHashMap<>();
  private final AtomicInteger failures = new AtomicInteger();
  private final Fault fault;

  public FakeGateway() {
    this(Fault.NONE);
  }

  public FakeGateway(Fault fault) {
    this.fault = fault;
  }

  /// The next `n` attempts to listen fail.
  public void failNext(int n) {
    failures.set(n);
  }

  @Override
  public void open(Id sandbox, EgressPath path, EgressRules rules, FlowRecorder flows)
      throws IOException {
    try {
      fault.at("egress.open");
    } catch (DriverException e) {
      throw new IOException(e);
    }
    if (failures.getAndUpdate(n -> Math.max(0, n - 1)) > 0) {
      throw new IOException("the address is in use");
    }
    ways.put(sandbox, new Way(rules, flows));
  }

  @Override
  public void close(Id sandbox) {
    Way way = ways.remove(sandbox);
    Flow flow = underWay.remove(sandbox);
    if (way != null && flow != null) {
      way.flows().record(flow);
    }
  }

  @Override
  public void close() {
    ways.clear();
  }

  public boolean isOpen(Id sandbox) {
    return ways.containsKey(sandbox);
  }

  private Way way(Id sandbox) {
    Way way = ways.get(sandbox);
    if (way == null) {
      throw new AssertionError("the gateway is not open for " + sandbox);
    }
    return way;
  }

  public Verdict decide(Id sandbox, String host, int port) {
    return way(sandbox).rules().decide(host, port, "CONNECT", "");
  }

  /// A flow that ends when the sandbox's way is closed.
  public void begin(Id sandbox, Flow flow) {
    underWay.put(sandbox, flow);
  }

  public void record(Id sandbox, Flow flow) {
    way(sandbox).flows().record(flow);
  }
}
