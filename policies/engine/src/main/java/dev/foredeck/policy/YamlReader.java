package dev.foredeck.policy;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import org.snakeyaml.engine.v2.api.LoadSettings;
import org.snakeyaml.engine.v2.api.lowlevel.Parse;
import org.snakeyaml.engine.v2.common.ScalarStyle;
import org.snakeyaml.engine.v2.events.AliasEvent;
import org.snakeyaml.engine.v2.events.CollectionStartEvent;
import org.snakeyaml.engine.v2.events.DocumentStartEvent;
import org.snakeyaml.engine.v2.events.Event;
import org.snakeyaml.engine.v2.events.MappingEndEvent;
import org.snakeyaml.engine.v2.events.MappingStartEvent;
import org.snakeyaml.engine.v2.events.NodeEvent;
import org.snakeyaml.engine.v2.events.ScalarEvent;
import org.snakeyaml.engine.v2.events.SequenceEndEvent;
import org.snakeyaml.engine.v2.exceptions.Mark;
import org.snakeyaml.engine.v2.exceptions.MarkedYamlEngineException;
import org.snakeyaml.engine.v2.exceptions.YamlEngineException;

/// Reads one YAML 1.2 document into [YamlNode]s from the parser's events, within limits on size,
/// depth and nodes. Anchors, aliases and tags are refused: a policy reads the same everywhere on
/// its page, and no document is larger than it looks.
final class YamlReader {
  static final int MAX_SOURCE_LENGTH = 256 * 1024;
  static final int MAX_DEPTH = 16;
  static final int MAX_NODES = 20_000;

  private final Faults faults;
  private final Deque<Open> open = new ArrayDeque<>();
  private @Nullable YamlNode root;
  private int nodes;

  /// A collection whose end is still to come.
  private record Open(
      boolean mapping,
      List<YamlNode> items,
      List<YamlNode.Entry> entries,
      Map<String, YamlNode.Scalar> keys,
      int line,
      int column) {}

  /// Keys wait here for their value: one for each open mapping.
  private final Deque<Optional<YamlNode.Scalar>> pendingKeys = new ArrayDeque<>();

  private YamlReader(Faults faults) {
    this.faults = faults;
  }

  /// The document's root, or nothing where it is too broken or too large to go on; the faults say
  /// which.
  static Optional<YamlNode> read(String source, Faults faults) {
    if (source.length() > MAX_SOURCE_LENGTH) {
      faults.add(
          1,
          1,
          "yaml",
          "the document has " + source.length() + " characters; the limit is " + MAX_SOURCE_LENGTH);
      return Optional.empty();
    }
    return new YamlReader(faults).readDocument(source);
  }

  private Optional<YamlNode> readDocument(String source) {
    LoadSettings settings =
        LoadSettings.builder()
            .setCodePointLimit(MAX_SOURCE_LENGTH)
            .setUseMarks(true)
            .setLabel("policy")
            .build();
    try {
      Iterator<Event> events = new Parse(settings).parseString(source).iterator();
      boolean started = false;
      while (events.hasNext()) {
        Event event = events.next();
        if (event instanceof DocumentStartEvent) {
          if (started) {
            fault(event, "a file holds one document; remove what follows '---'");
            return Optional.empty();
          }
          started = true;
        } else if (!take(event)) {
          return Optional.empty();
        }
      }
    } catch (MarkedYamlEngineException broken) {
      Optional<Mark> mark = broken.getProblemMark().or(broken::getContextMark);
      faults.add(
          mark.map(at -> at.getLine() + 1).orElse(1),
          mark.map(at -> at.getColumn() + 1).orElse(1),
          "yaml",
          yamlMessage(broken));
      return Optional.empty();
    } catch (YamlEngineException broken) {
      faults.add(1, 1, "yaml", firstLine(String.valueOf(broken.getMessage())));
      return Optional.empty();
    }
    if (root == null) {
      faults.add(1, 1, "yaml", "the document is empty");
      return Optional.empty();
    }
    return Optional.of(root);
  }

  private static String yamlMessage(MarkedYamlEngineException broken) {
    String context = broken.getContext();
    String problem = broken.getProblem();
    if (context == null || context.isEmpty()) {
      return "" + problem;
    }
    return context + ": " + problem;
  }

  private static String firstLine(String text) {
    int end = text.indexOf('\n');
    return end < 0 ? text : text.substring(0, end);
  }

  private boolean take(Event event) {
    if (event instanceof AliasEvent) {
      fault(event, "aliases are not supported in a policy; write the value out");
      return false;
    }
    if (event instanceof NodeEvent node) {
      nodes++;
      if (nodes > MAX_NODES) {
        fault(event, "the document has more than " + MAX_NODES + " values");
        return false;
      }
      if (node.getAnchor().isPresent()) {
        fault(event, "anchors are not supported in a policy; write the value out");
        return false;
      }
    }
    return switch (event) {
      case ScalarEvent scalar -> takeScalar(scalar);
      case CollectionStartEvent start -> takeStart(start);
      case SequenceEndEvent _, MappingEndEvent _ -> takeEnd();
      case Event _ -> true;
    };
  }

  private boolean takeStart(CollectionStartEvent event) {
    if (event.getTag().isPresent()) {
      fault(event, "tags are not supported in a policy");
      return false;
    }
    if (open.size() >= MAX_DEPTH) {
      fault(event, "values are nested deeper than " + MAX_DEPTH);
      return false;
    }
    boolean mapping = event instanceof MappingStartEvent;
    if (isAwaitingKey()) {
      fault(event, "a key must be a plain word");
      return false;
    }
    open.push(
        new Open(
            mapping,
            new ArrayList<>(),
            new ArrayList<>(),
            new HashMap<>(),
            line(event),
            column(event)));
    pendingKeys.push(Optional.empty());
    return true;
  }

  private boolean takeEnd() {
    Open closed = open.pop();
    pendingKeys.pop();
    if (closed.mapping()) {
      place(new YamlNode.Mapping(List.copyOf(closed.entries()), closed.line(), closed.column()));
    } else {
      place(new YamlNode.Sequence(List.copyOf(closed.items()), closed.line(), closed.column()));
    }
    return true;
  }

  private boolean takeScalar(ScalarEvent event) {
    if (event.getTag().isPresent()) {
      fault(event, "tags are not supported in a policy");
      return false;
    }
    YamlNode.Scalar scalar =
        new YamlNode.Scalar(
            event.getValue(),
            event.getScalarStyle() == ScalarStyle.PLAIN,
            event.getScalarStyle() == ScalarStyle.LITERAL,
            indicator(event),
            line(event),
            column(event));
    if (isAwaitingKey()) {
      pendingKeys.pop();
      pendingKeys.push(Optional.of(scalar));
    } else {
      place(scalar);
    }
    return true;
  }

  /// Columns from the node's start to its text where the source holds the text as it is.
  private static int indicator(ScalarEvent event) {
    int quotes = event.getScalarStyle() == ScalarStyle.PLAIN ? 0 : 1;
    Mark start = event.getStartMark().orElse(null);
    Mark end = event.getEndMark().orElse(null);
    if (start == null || end == null || start.getLine() != end.getLine()) {
      return -1;
    }
    int written = end.getColumn() - start.getColumn();
    int text = event.getValue().codePointCount(0, event.getValue().length());
    return written == text + 2 * quotes ? quotes : -1;
  }

  private boolean isAwaitingKey() {
    Open top = open.peek();
    return top != null && top.mapping() && pendingKeys.element().isEmpty();
  }

  private void place(YamlNode node) {
    Open top = open.peek();
    if (top == null) {
      root = node;
      return;
    }
    if (!top.mapping()) {
      top.items().add(node);
      return;
    }
    YamlNode.Scalar key = pendingKeys.pop().orElseThrow();
    pendingKeys.push(Optional.empty());
    YamlNode.Scalar first = top.keys().putIfAbsent(key.text(), key);
    if (first != null) {
      faults.add(
          key, "yaml", "'" + key.text() + "' stands twice; the first is on line " + first.line());
      return;
    }
    top.entries().add(new YamlNode.Entry(key, node));
  }

  private void fault(Event event, String message) {
    faults.add(line(event), column(event), "yaml", message);
  }

  private static int line(Event event) {
    return event.getStartMark().map(mark -> mark.getLine() + 1).orElse(1);
  }

  private static int column(Event event) {
    return event.getStartMark().map(mark -> mark.getColumn() + 1).orElse(1);
  }
}
