package dev.foredeck.driver.kubernetes;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.DriverException;
import io.fabric8.kubernetes.api.model.Event;
import io.fabric8.kubernetes.api.model.EventBuilder;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.api.model.PodBuilder;
import io.fabric8.kubernetes.api.model.PodCondition;
import io.fabric8.kubernetes.api.model.PodConditionBuilder;
import java.util.List;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class PodViewTest {
  @ParameterizedTest
  @ValueSource(
      strings = {
        "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: 1 No"
            + " preemption victims found for incoming pod.",
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu.",
        "0/1 nodes are available: 1 Too many pods.",
      })
  void nodesThatAreTakenUpAreNoRoom(String message) {
    assertThat(PodView.noRoom(unscheduled(message)))
        .hasValueSatisfying(
            full -> assertThat(full).hasMessage("the cluster has no node for it: " + message));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
        "",
      })
  void whatGivingUpAnotherPodWouldNotMendIsNot(String message) {
    assertThat(PodView.noRoom(unscheduled(message))).isEmpty();
  }

  @Test
  void aPodThatNobodyHasLookedAtIsNot() {
    assertThat(PodView.noRoom(new PodBuilder().build())).isEmpty();
    assertThat(PodView.noRoom(new PodBuilder().withNewStatus().endStatus().build())).isEmpty();
  }

  @Test
  void aPodThatIsLateSaysTheNewestWarningOfTheCluster() {
    Pod pod = new PodBuilder().withNewStatus().withPhase("Pending").endStatus().build();
    Event old = warning("FailedMount", "no such volume", "2026-11-24T12:00:00Z");
    Event newest = warning("FailedCreatePodSandBox", "no such runtime", "2026-11-24T12:00:09Z");

    assertThat(PodView.late(pod, List.of(old, newest, warning("Old", "no time", null))))
        .isInstanceOf(DriverException.Failed.class)
        .hasMessage("its pod did not start in time: FailedCreatePodSandBox, no such runtime");
    assertThat(PodView.late(pod, List.of())).hasMessage("its pod did not start in time");
    assertThat(PodView.late(unscheduled("2 Insufficient cpu."), List.of(newest)))
        .isInstanceOf(DriverException.Full.class);
  }

  @Test
  void aNodeThatNobodyHearsOfIsTold() {
    Pod lost =
        new PodBuilder()
            .withNewSpec()
            .withNodeName("n1")
            .endSpec()
            .withNewStatus()
            .withPhase("Running")
            .addToConditions(condition("ContainersReady", "True", "", ""))
            .addToConditions(condition("Ready", "False", "", ""))
            .endStatus()
            .build();
    assertThat(PodView.lostNode(lost))
        .contains("its node n1 has not been heard of since 2026-12-01T12:00:00Z");
    Pod starting =
        new PodBuilder()
            .withNewStatus()
            .addToConditions(condition("ContainersReady", "False", "", ""))
            .addToConditions(condition("Ready", "False", "", ""))
            .endStatus()
            .build();
    assertThat(PodView.lostNode(starting)).isEmpty();
    assertThat(PodView.lostNode(new PodBuilder().build())).isEmpty();
  }

  /// A pod that the cluster gave up says who did so, and why.
  @Test
  void whatTheClusterEndedSaysWhy() {
    Id sandbox = new Id("sbx00000000000000001");
    Pod deleted =
        new PodBuilder()
            .withNewMetadata()
            .withDeletionTimestamp("2026-12-01T12:00:00Z")
            .endMetadata()
            .withNewStatus()
            .addToConditions(
                condition(
                    "DisruptionTarget",
                    "True",
                    "DeletionByTaintManager",
                    "Taint manager: deleting due to NoExecute taint"))
            .endStatus()
            .build();
    assertThat(PodView.state(sandbox, deleted))
        .isEqualTo(
            new BackendState(
                sandbox,
                BackendState.Status.EXITED,
                "the cluster removed its pod: DeletionByTaintManager, Taint manager: deleting due"
                    + " to NoExecute taint"));
    Pod over =
        new PodBuilder()
            .withNewMetadata()
            .endMetadata()
            .withNewStatus()
            .withPhase("Failed")
            .withReason("DeadlineExceeded")
            .endStatus()
            .build();
    assertThat(PodView.state(sandbox, over).detail()).isEqualTo("its time to live is over");
  }

  private static PodCondition condition(String type, String status, String reason, String message) {
    return new PodConditionBuilder()
        .withType(type)
        .withStatus(status)
        .withReason(reason)
        .withMessage(message)
        .withLastTransitionTime("2026-12-01T12:00:00Z")
        .build();
  }

  private static Event warning(String reason, String message, @Nullable String time) {
    return new EventBuilder()
        .withReason(reason)
        .withMessage(message)
        .withLastTimestamp(time)
        .build();
  }

  private static Pod unscheduled(String message) {
    return new PodBuilder()
        .withNewStatus()
        .withPhase("Pending")
        .addNewCondition()
        .withType("PodScheduled")
        .withStatus("False")
        .withReason("Unschedulable")
        .withMessage(message)
        .endCondition()
        .endStatus()
        .build();
  }
}
