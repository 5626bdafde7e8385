package dev.foredeck.core.store;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import org.junit.jupiter.api.Test;

final class InMemoryStoreTest extends StoreContract {
  private final InMemoryStore memory = new InMemoryStore();

  @Override
  protected Store store() {
    return memory;
  }

  private static final class Crash extends RuntimeException {
    private static final long serialVersionUID = 1L;
  }

  @Test
  void aCrashBeforeACommitLeavesNothing() {
    memory.hook(
        new InMemoryStore.CommitHook() {
          @Override
          public void before(Commit commit) {
            throw new Crash();
          }
        });
    var sandbox = newSandbox(ids.tenant(), "here");
    assertThatThrownBy(() -> create(sandbox)).isInstanceOf(Crash.class);
    assertThat(memory.sandbox(sandbox.id())).isEmpty();
  }

  @Test
  void aCrashAfterACommitLeavesAllOfIt() {
    memory.hook(
        new InMemoryStore.CommitHook() {
          @Override
          public void after(Commit commit, CommitResult result) {
            throw new Crash();
          }
        });
    var sandbox = newSandbox(ids.tenant(), "here");
    assertThatThrownBy(() -> create(sandbox)).isInstanceOf(Crash.class);
    assertThat(memory.sandbox(sandbox.id()).orElseThrow().phase()).isEqualTo(Phase.REQUESTED);
  }

  @Test
  void unavailableMeansUnavailable() {
    memory.unavailable(true);
    assertThatThrownBy(() -> create(newSandbox(ids.tenant(), "here")))
        .isInstanceOf(StoreUnavailableException.class);
    assertThat(memory.healthy()).isFalse();
  }
}
