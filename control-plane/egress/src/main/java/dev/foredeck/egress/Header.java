package dev.foredeck.egress;

/// One header field.
///
/// @param name a token, as it was written
/// @param value without surrounding blanks; one char per byte (ISO 8859-1)
record Header(String name, String value) {
  boolean is(String other) {
    return name.equalsIgnoreCase(other);
  }
}
