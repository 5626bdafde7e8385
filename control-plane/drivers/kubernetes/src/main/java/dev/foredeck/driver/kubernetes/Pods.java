package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Deadline;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.informers.ResourceEventHandler;
import io.fabric8.kubernetes.client.informers.SharedIndexInformer;
import io.fabric8.kubernetes.client.informers.cache.Cache;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import java.util.function.Function;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// This deployment's pods as the API server last told: one watch, which begins again by itself, and
/// no polling. While the API server is away it holds what was last seen.
///
/// Threads: the informer's own delivers changes; whoever waits does so on `changed`, under `lock`.
final class Pods implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(Pods.class);

  private static final long LOOK_NANOS = TimeUnit.MILLISECONDS.toNanos(100);

  private final String namespace;
  private final SharedIndexInformer<Pod> informer;
  private final Consumer<Id> onChange;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private boolean closed;

  /// @param selector labels of the pods
  /// @param onChange told of each change, on the watch's thread: must not block
  Pods(
      KubernetesClient client,
      String namespace,
      Map<String, String> selector,
      Consumer<Id> onChange) {
    this.namespace = namespace;
    this.onChange = onChange;
    this.informer = client.pods().inNamespace(namespace).withLabels(selector).runnableInformer(0);
    SharedIndexInformer<Pod> _ = informer.addEventHandler(new Told());
    SharedIndexInformer<Pod> _ =
        informer.exceptionHandler((_, problem) -> {
          LOG.warn("the watch of pods broke off and begins again: {}", problem.toString());
          return true;
        });
    var _ = informer.start();
  }

  private final class Told implements ResourceEventHandler<Pod> {
    @Override
    public void onAdd(Pod pod) {
      tell(pod);
    }

    @Override
    public void onUpdate(Pod before, Pod pod) {
      tell(pod);
    }

    @Override
    public void onDelete(Pod pod, boolean unknown) {
      tell(pod);
    }

    @Override
    public void onList(String resourceVersion, boolean remainedEmpty) {
      wake();
    }
  }

  private void tell(Pod pod) {
    wake();
    String name = pod.getMetadata().getName();
    if (Id.isValid(name)) {
      onChange.accept(new Id(name));
    }
  }

  private void wake() {
    lock.lock();
    try {
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  Optional<Pod> get(Id sandbox) {
    return Optional.ofNullable(
        informer.getStore().getByKey(Cache.namespaceKeyFunc(namespace, sandbox.value())));
  }

  List<Pod> all() {
    return informer.getStore().list();
  }

  /// Waits until the first list of pods was read.
  void awaitFirstList(Deadline deadline) throws DriverException.Failed {
    if (informer.hasSynced()) {
      return;
    }
    Optional<Boolean> synced =
        await(deadline, () -> informer.hasSynced() ? Optional.of(true) : Optional.empty());
    if (synced.isEmpty()) {
      throw new DriverException.Failed("the Kubernetes API server has not answered yet");
    }
  }

  /// Waits until a pod is as wanted.
  ///
  /// @param wanted of the pod, or of its absence; its result ends the wait
  /// @return empty when the deadline passed
  <T> Optional<T> await(Id sandbox, Deadline deadline, Function<Optional<Pod>, Optional<T>> wanted)
      throws DriverException.Failed {
    return await(deadline, () -> wanted.apply(get(sandbox)));
  }

  private interface Look<T> {
    Optional<T> look();
  }

  private <T> Optional<T> await(Deadline deadline, Look<T> look) throws DriverException.Failed {
    lock.lock();
    try {
      while (true) {
        Optional<T> seen = look.look();
        if (seen.isPresent() || deadline.passed()) {
          return seen;
        }
        if (closed) {
          throw new DriverException.Failed("the driver is closed");
        }
        // The end of the first list is told before the informer says so itself: look again soon.
        long nanos = Math.min(deadline.remainingNanos(), LOOK_NANOS);
        long _ = changed.awaitNanos(Math.max(1, nanos));
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DriverException.Failed("interrupted while waiting for a pod", e);
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void close() {
    lock.lock();
    try {
      closed = true;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    informer.stop();
  }
}
