package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.DriverException;
import io.fabric8.kubernetes.api.model.ContainerState;
import io.fabric8.kubernetes.api.model.ContainerStateTerminated;
import io.fabric8.kubernetes.api.model.ContainerStateWaiting;
import io.fabric8.kubernetes.api.model.ContainerStatus;
import io.fabric8.kubernetes.api.model.Event;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.api.model.PodCondition;
import io.fabric8.kubernetes.api.model.PodStatus;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/// A pod's status in words of ours: what it is, and what a user can do about it.
final class PodView {
  /// A message of a cluster's part, cut to what fits ours.
  private static final int MESSAGE_CHARACTERS = 400;

  private static final int KILLED = 137;

  /// The kubelet has tried to pull, and waits before it tries again.
  private static final Set<String> NO_IMAGE =
      Set.of("ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError");

  /// How the scheduler says that pods take up a node: `0/1 nodes are available: 1 Insufficient
  /// memory.`
  private static final Pattern NO_ROOM = Pattern.compile("\\b(Insufficient |Too many pods\\b)");

  private PodView() {}

  static BackendState state(Id sandbox, Pod pod) {
    PodStatus status = pod.getStatus();
    if (pod.getMetadata().getDeletionTimestamp() != null) {
      return new BackendState(sandbox, Status.EXITED, deleted(status));
    }
    ContainerState main = main(status);
    if (main != null && main.getTerminated() != null) {
      return new BackendState(sandbox, Status.EXITED, ended(status, main.getTerminated()));
    }
    return switch (phase(status)) {
      case "Failed", "Succeeded" -> new BackendState(sandbox, Status.EXITED, ended(status, null));
      default ->
          main != null && main.getRunning() != null
              ? new BackendState(sandbox, Status.RUNNING, "")
              : new BackendState(sandbox, Status.STARTING, waiting(status));
    };
  }

  /// Why a pod that has not started will not start by itself, whatever time it gets; empty while it
  /// may.
  static Optional<DriverException> obstacle(Pod pod) {
    for (ContainerStatus container : containers(pod.getStatus())) {
      ContainerStateWaiting waiting = waiting(container);
      if (waiting == null) {
        continue;
      }
      String reason = text(waiting.getReason());
      if (NO_IMAGE.contains(reason)) {
        return Optional.of(
            new DriverException.Refused(
                "the image "
                    + text(container.getImage())
                    + " is not there or may not be pulled"
                    + because(reason, waiting.getMessage())));
      }
      if (reason.equals("CreateContainerConfigError")) {
        return Optional.of(
            new DriverException.Refused(
                "the template's pod cannot be made" + because(reason, waiting.getMessage())));
      }
    }
    return Optional.empty();
  }

  /// Whether no node has room for it now. May change at any time, as other pods go. A node that
  /// would never take it, or a volume that is not there yet, is another matter.
  static Optional<DriverException.Full> noRoom(Pod pod) {
    PodStatus status = pod.getStatus();
    return condition(status, "PodScheduled", "False")
        .filter(c -> NO_ROOM.matcher(text(c.getMessage())).find())
        .map(PodView::full);
  }

  private static DriverException.Full full(PodCondition unschedulable) {
    return new DriverException.Full(
        "the cluster has no node for it" + because("", unschedulable.getMessage()));
  }

  /// A node that nobody hears of: the cluster says of its pods that they are not ready, while all
  /// that it last knew of their containers is that they are. What runs there may go on.
  static Optional<String> lostNode(Pod pod) {
    PodStatus status = pod.getStatus();
    return condition(status, "ContainersReady", "True")
        .flatMap(_ -> condition(status, "Ready", "False"))
        .map(ready ->
            "its node "
                + text(pod.getSpec().getNodeName())
                + " has not been heard of since "
                + text(ready.getLastTransitionTime()));
  }

  /// What the deadline of a pod that has not started means.
  ///
  /// @param warnings of the cluster about this pod: a runtime that cannot make it, or a volume that
  ///   cannot be mounted, is told nowhere else
  static DriverException late(Pod pod, List<Event> warnings) {
    PodStatus status = pod.getStatus();
    Optional<PodCondition> unschedulable = condition(status, "PodScheduled", "False");
    if (unschedulable.isPresent()) {
      return full(unschedulable.get());
    }
    String waiting = waiting(status);
    String why =
        waiting.isEmpty()
            ? warnings.stream()
                .max(Comparator.comparing(PodView::time))
                .map(warning -> because(warning.getReason(), warning.getMessage()))
                .orElse("")
            : ": " + waiting;
    return new DriverException.Failed("its pod did not start in time" + why);
  }

  /// When it was last seen, as text whose order is that of time.
  private static String time(Event event) {
    if (event.getSeries() != null && event.getSeries().getLastObservedTime() != null) {
      return text(event.getSeries().getLastObservedTime().getTime());
    }
    if (event.getLastTimestamp() != null) {
      return event.getLastTimestamp();
    }
    return event.getEventTime() == null ? "" : text(event.getEventTime().getTime());
  }

  private static String phase(@Nullable PodStatus status) {
    return status == null ? "" : text(status.getPhase());
  }

  private static List<ContainerStatus> containers(@Nullable PodStatus status) {
    if (status == null) {
      return List.of();
    }
    List<ContainerStatus> all = new java.util.ArrayList<>(status.getInitContainerStatuses());
    all.addAll(status.getContainerStatuses());
    return all;
  }

  private static @Nullable ContainerState main(@Nullable PodStatus status) {
    for (ContainerStatus container : containers(status)) {
      if (SandboxPod.CONTAINER.equals(container.getName())) {
        return container.getState();
      }
    }
    return null;
  }

  private static @Nullable ContainerStateWaiting waiting(ContainerStatus container) {
    return container.getState() == null ? null : container.getState().getWaiting();
  }

  /// What holds up a pod that has not started; empty where nothing is said.
  private static String waiting(@Nullable PodStatus status) {
    Optional<PodCondition> unschedulable = condition(status, "PodScheduled", "False");
    if (unschedulable.isPresent()) {
      return "no node for it" + because("", unschedulable.get().getMessage());
    }
    for (ContainerStatus container : containers(status)) {
      ContainerStateWaiting waiting = waiting(container);
      if (waiting != null
          && !Set.of("PodInitializing", "ContainerCreating", "")
              .contains(text(waiting.getReason()))) {
        return container.getName() + because(waiting.getReason(), waiting.getMessage());
      }
      ContainerState state = container.getState();
      if (state != null
          && state.getTerminated() != null
          && number(state.getTerminated().getExitCode()) != 0) {
        return container.getName() + ": " + exit(state.getTerminated());
      }
    }
    return "";
  }

  private static String deleted(@Nullable PodStatus status) {
    return condition(status, "DisruptionTarget", "True")
        .map(c -> "the cluster removed its pod" + because(c.getReason(), c.getMessage()))
        .orElse("its pod was deleted");
  }

  /// How a pod that has ended ended.
  private static String ended(@Nullable PodStatus status, @Nullable ContainerStateTerminated main) {
    String reason = status == null ? "" : text(status.getReason());
    String message = status == null ? "" : text(status.getMessage());
    if (reason.equals("Evicted")) {
      return "the cluster evicted it" + because("", message);
    }
    if (reason.equals("DeadlineExceeded")) {
      return "its time to live is over";
    }
    if (!reason.isEmpty()) {
      return "the cluster ended it" + because(reason, message);
    }
    if (main != null) {
      return exit(main);
    }
    for (ContainerStatus container : containers(status)) {
      ContainerState state = container.getState();
      if (state != null
          && state.getTerminated() != null
          && number(state.getTerminated().getExitCode()) != 0) {
        return container.getName() + ": " + exit(state.getTerminated());
      }
    }
    return "its pod has ended";
  }

  private static String exit(ContainerStateTerminated terminated) {
    if ("OOMKilled".equals(terminated.getReason())) {
      return "out of memory";
    }
    int code = number(terminated.getExitCode());
    String killed = code == KILLED ? " (killed)" : "";
    String said = text(terminated.getMessage());
    return "exit status " + code + killed + (said.isEmpty() ? "" : ": " + said);
  }

  private static Optional<PodCondition> condition(
      @Nullable PodStatus status, String type, String value) {
    if (status == null) {
      return Optional.empty();
    }
    return status.getConditions().stream()
        .filter(c -> type.equals(c.getType()) && value.equals(c.getStatus()))
        .findFirst();
  }

  private static String because(@Nullable String reason, @Nullable String message) {
    String why = text(reason);
    String said = text(message);
    if (why.isEmpty() && said.isEmpty()) {
      return "";
    }
    return ": " + (why.isEmpty() || said.isEmpty() ? why + said : why + ", " + said);
  }

  private static int number(@Nullable Integer value) {
    return value == null ? 0 : value;
  }

  /// What a cluster's part says, as one line.
  static String text(@Nullable String value) {
    if (value == null) {
      return "";
    }
    String line = value.strip().replaceAll("\\p{Cntrl}+", " ");
    return line.length() <= MESSAGE_CHARACTERS ? line : line.substring(0, MESSAGE_CHARACTERS);
  }
}
