package dev.foredeck.egress;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Delivery;
import dev.foredeck.core.egress.EgressGateway.EgressRules;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.FlowRecorder;
import dev.foredeck.core.egress.EgressGateway.Verdict;
import java.io.IOException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Deque;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;
import java.util.function.LongConsumer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// One sandbox as its control plane sees it: its rules, its recorder, which gateways have let it in
/// or out, and an account of each gateway's flows.
///
/// Threading: any. The lock guards what gateways said; each account has a lock of its own, and a
/// flow is handed over outside of both.
final class RemoteSandbox {
  private static final Logger log = LoggerFactory.getLogger(RemoteSandbox.class);

  /// Far more than a gateway lets be open at once.
  private static final int MOST_UNDER_WAY = 20_000;

  private record Decided(String host, int port, String method, String path, Verdict verdict) {
    /// Which of several that are alike does not matter: they are alike.
    boolean became(Flow flow) {
      return port == flow.port()
          && host.equals(flow.host())
          && method.equals(flow.method())
          && path.equals(flow.path());
    }

    Flow unknownEnd() {
      String reason =
          "the egress gateway ended before it told how this went; bytes and end are unknown";
      return new Flow(
          "",
          host,
          port,
          "",
          method,
          path,
          verdict.allowed() ? "allow" : "deny",
          verdict.rule(),
          reason,
          verdict.shadow(),
          0,
          0,
          0);
    }
  }

  /// The flows of one life of one gateway.
  private static final class Account {
    private final ReentrantLock lock = new ReentrantLock();
    private final Deque<Decided> underWay = new ArrayDeque<>();
    private long handedOver;
    private long recorded;

    void decided(Decided decided) throws IOException {
      lock.lock();
      try {
        if (underWay.size() >= MOST_UNDER_WAY) {
          throw new IOException("the gateway asks and asks, and tells of no flow");
        }
        underWay.addLast(decided);
      } finally {
        lock.unlock();
      }
    }

    private enum Known {
      NEW,
      HANDED_OVER,
      RECORDED
    }

    Known take(long number, Flow flow) {
      lock.lock();
      try {
        if (number <= recorded) {
          return Known.RECORDED;
        }
        if (number <= handedOver) {
          return Known.HANDED_OVER;
        }
        handedOver = number;
        for (Iterator<Decided> i = underWay.iterator(); i.hasNext(); ) {
          if (i.next().became(flow)) {
            i.remove();
            break;
          }
        }
        return Known.NEW;
      } finally {
        lock.unlock();
      }
    }

    void recorded(long number) {
      lock.lock();
      try {
        recorded = Math.max(recorded, number);
      } finally {
        lock.unlock();
      }
    }

    List<Decided> settle() {
      lock.lock();
      try {
        List<Decided> left = new ArrayList<>(underWay);
        underWay.clear();
        return left;
      } finally {
        lock.unlock();
      }
    }
  }

  private final Id id;
  private final String opening;
  private final String credentialSha256;
  private final EgressRules rules;
  private final FlowRecorder flows;
  private final Map<String, Account> accounts = new ConcurrentHashMap<>();
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final Set<GatewayLink> letIn = new HashSet<>();
  private final Set<GatewayLink> letOut = new HashSet<>();
  private String refusal = "";

  /// @param opening names this opening among all of all control planes
  RemoteSandbox(
      Id id, String opening, String credentialSha256, EgressRules rules, FlowRecorder flows) {
    this.id = id;
    this.opening = opening;
    this.credentialSha256 = credentialSha256;
    this.rules = rules;
    this.flows = flows;
  }

  /// Goes on with the accounts of the one before: flows that it took are not taken again.
  void continues(RemoteSandbox former) {
    accounts.putAll(former.accounts);
  }

  LinkMessage.Open order() {
    return new LinkMessage.Open(id, opening, credentialSha256);
  }

  private Account account(String gateway) {
    return accounts.computeIfAbsent(gateway, _ -> new Account());
  }

  // -- What gateways ask and tell

  /// @throws IOException where the gateway is out of its mind
  Verdict decide(String gateway, LinkMessage.Question asked) throws IOException {
    Verdict verdict;
    try {
      verdict = rules.decide(asked.host(), asked.port(), asked.method(), asked.path());
    } catch (RuntimeException e) {
      log.error("{}: egress rules failed", id, e);
      verdict = new Verdict(false, "policy-error", "the rules could not be evaluated");
    }
    account(gateway)
        .decided(
            new Decided(
                asked.host(),
                asked.port(),
                asked.method(),
                FlowTally.shownPath(asked.path()),
                verdict));
    return verdict;
  }

  /// @param acknowledge told the number once the flow is durable, now or later
  void ended(String gateway, LinkMessage.Ended ended, LongConsumer acknowledge) {
    Account account = account(gateway);
    switch (account.take(ended.number(), ended.flow())) {
      case RECORDED -> acknowledge.accept(ended.number());
      case HANDED_OVER -> log.debug("{}: a flow came twice; the first is on its way", id);
      case NEW ->
          flows.record(
              ended.flow(),
              new Delivery(
                  gateway,
                  ended.number(),
                  ended.repeated(),
                  () -> {
                    account.recorded(ended.number());
                    acknowledge.accept(ended.number());
                  }));
    }
  }

  /// Nothing more comes from this life of a gateway: what it was asked about and did not tell of is
  /// recorded as that.
  void settle(String gateway) {
    Account account = accounts.get(gateway);
    if (account != null) {
      account.settle().forEach(decided -> flows.record(decided.unknownEnd()));
    }
  }

  void settleAll() {
    accounts.keySet().forEach(this::settle);
  }

  void letIn(GatewayLink link, String byOpening) {
    change(() -> {
      if (byOpening.equals(opening)) {
        letIn.add(link);
      }
    });
  }

  void refused(String byOpening, String reason) {
    change(() -> {
      if (byOpening.equals(opening)) {
        refusal = reason;
      }
    });
  }

  void letOut(GatewayLink link) {
    change(() -> letOut.add(link));
  }

  void lost(GatewayLink link) {
    change(() -> letIn.remove(link));
  }

  private void change(Runnable what) {
    lock.lock();
    try {
      what.run();
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  // -- Waiting for them

  /// Returns once every gateway that is linked has let the sandbox in, and at least one has.
  ///
  /// @throws IOException where one refuses, or none does in time
  void awaitLetIn(Collection<GatewayLink> links, long millis)
      throws IOException, InterruptedException {
    boolean done =
        await(
            () ->
                !refusal.isEmpty()
                    || (!letIn.isEmpty()
                        && links.stream().allMatch(l -> letIn.contains(l) || !l.isLinked())),
            millis);
    if (!refusal.isEmpty()) {
      throw new IOException("the egress gateway refuses: " + refusal);
    }
    if (!done) {
      throw new IOException("no egress gateway answered within " + millis + " ms");
    }
  }

  /// @param mayAnswer whether a gateway that has not yet may still do so
  /// @return whether all have
  boolean awaitLetOut(
      Collection<GatewayLink> links,
      java.util.function.Predicate<GatewayLink> mayAnswer,
      long millis)
      throws InterruptedException {
    await(() -> links.stream().allMatch(l -> letOut.contains(l) || !mayAnswer.test(l)), millis);
    lock.lock();
    try {
      return letOut.containsAll(links);
    } finally {
      lock.unlock();
    }
  }

  private boolean await(BooleanSupplier reached, long millis) throws InterruptedException {
    lock.lock();
    try {
      long leftNanos = TimeUnit.MILLISECONDS.toNanos(millis);
      while (!reached.getAsBoolean()) {
        if (leftNanos <= 0) {
          return false;
        }
        // What a link's state is changes without a signal, too: look now and then.
        long part = Math.min(leftNanos, TimeUnit.MILLISECONDS.toNanos(50));
        leftNanos += changed.awaitNanos(part) - part;
      }
      return true;
    } finally {
      lock.unlock();
    }
  }
}
