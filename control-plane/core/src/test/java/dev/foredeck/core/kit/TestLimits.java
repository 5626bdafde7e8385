package dev.foredeck.core.kit;

import dev.foredeck.core.Limits;
import java.lang.reflect.RecordComponent;
import java.util.HashMap;
import java.util.Map;

/// The default limits with some of them small enough, or large enough, for a test.
public final class TestLimits {
  private TestLimits() {}

  /// @param changed values by the names of [Limits]'s components
  public static Limits with(Map<String, ?> changed) {
    Map<String, Object> left = new HashMap<>(changed);
    RecordComponent[] components = Limits.class.getRecordComponents();
    Class<?>[] types = new Class<?>[components.length];
    Object[] values = new Object[components.length];
    try {
      for (int i = 0; i < components.length; i++) {
        types[i] = components[i].getType();
        Object value = left.remove(components[i].getName());
        values[i] = value == null ? components[i].getAccessor().invoke(Limits.DEFAULT) : value;
      }
      if (!left.isEmpty()) {
        throw new AssertionError("there are no limits " + left.keySet());
      }
      return Limits.class.getConstructor(types).newInstance(values);
    } catch (ReflectiveOperationException e) {
      throw new LinkageError("the limits are not a record that tests can read", e);
    }
  }
}
