import org.jspecify.annotations.NullMarked;

/// The agent: process 1 of every sandbox. Needs nothing but the JDK.
@NullMarked
module dev.foredeck.agent {
  requires dev.foredeck.protocol;
  requires static org.jspecify;
}
