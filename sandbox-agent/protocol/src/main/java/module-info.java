import org.jspecify.annotations.NullMarked;

/// What crosses between the control plane and the agent in a sandbox: records, limits, codec.
@NullMarked
module dev.foredeck.protocol {
  requires static transitive org.jspecify;

  exports dev.foredeck.protocol;
}
