package dev.foredeck.policy;

import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// The actions that rules name, each with the family whose fields its conditions see.
enum ActionName {
  PROCESS_START("process.start", Family.PROCESS),
  PROCESS_SIGNAL("process.signal", Family.SIGNAL),
  CODE_RUN("code.run", Family.CODE),
  FILE_READ("file.read", Family.FILE),
  FILE_WRITE("file.write", Family.FILE),
  FILE_LIST("file.list", Family.FILE),
  FILE_STAT("file.stat", Family.FILE),
  FILE_MOVE("file.move", Family.FILE),
  FILE_REMOVE("file.remove", Family.FILE),
  EGRESS_CONNECT("egress.connect", Family.EGRESS);

  /// One CEL environment each.
  enum Family {
    PROCESS,
    SIGNAL,
    CODE,
    FILE,
    EGRESS
  }

  /// Tools of the gate that no policy can decide on yet.
  static final Set<String> LATER =
      Set.of("file.watch", "web.fetch", "port.expose", "mcp.call", "process.resize");

  /// Everything but `egress.connect`, which a rule must name.
  static final Set<ActionName> CALLS = EnumSet.range(PROCESS_START, FILE_REMOVE);

  private static final Map<String, ActionName> BY_WIRE_NAME = byWireName();

  private final String wireName;
  private final Family family;

  ActionName(String wireName, Family family) {
    this.wireName = wireName;
    this.family = family;
  }

  private static Map<String, ActionName> byWireName() {
    Map<String, ActionName> names = new HashMap<>();
    for (ActionName name : values()) {
      names.put(name.wireName, name);
    }
    return Map.copyOf(names);
  }

  static Optional<ActionName> find(String wireName) {
    return Optional.ofNullable(BY_WIRE_NAME.get(wireName));
  }

  /// The actions of a name, of `file.*` or `process.*`, or of `*`; empty where there is none.
  static Set<ActionName> named(String text) {
    if (text.equals("*")) {
      return CALLS;
    }
    EnumSet<ActionName> found = EnumSet.noneOf(ActionName.class);
    if (text.equals("file.*") || text.equals("process.*")) {
      String prefix = text.substring(0, text.length() - 1);
      for (ActionName name : values()) {
        if (name.wireName.startsWith(prefix)) {
          found.add(name);
        }
      }
    }
    find(text).ifPresent(found::add);
    return found;
  }

  /// Everything that may be written as an action.
  static List<String> spellings() {
    List<String> spellings = new ArrayList<>();
    for (ActionName name : values()) {
      spellings.add(name.wireName);
    }
    spellings.add("file.*");
    spellings.add("process.*");
    return spellings;
  }

  String wireName() {
    return wireName;
  }

  Family family() {
    return family;
  }
}
