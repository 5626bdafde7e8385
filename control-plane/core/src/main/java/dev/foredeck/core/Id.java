package dev.foredeck.core;

import java.util.regex.Pattern;

/// A name that Foredeck made: a kind prefix, then time-ordered base 32. Good as a pod name, a DNS
/// label and a partition key.
///
/// @param value matches `^[a-z][a-z0-9]{15,40}$`
public record Id(String value) implements Comparable<Id> {
  private static final Pattern SHAPE = Pattern.compile("[a-z][a-z0-9]{15,40}");

  public Id {
    if (!isValid(value)) {
      throw new IllegalArgumentException("not an id: it must match ^[a-z][a-z0-9]{15,40}$");
    }
  }

  public static boolean isValid(String value) {
    return SHAPE.matcher(value).matches();
  }

  @Override
  public int compareTo(Id other) {
    return value.compareTo(other.value);
  }

  @Override
  public String toString() {
    return value;
  }
}
