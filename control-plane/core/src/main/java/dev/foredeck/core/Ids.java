package dev.foredeck.core;

import java.time.Clock;
import java.util.random.RandomGenerator;

/// Makes ids: kind prefix, 10 characters of milliseconds, 12 of randomness, in lower-case base 32
/// whose order is the order of time. Thread-safe when its generator is.
public final class Ids {
  private static final String ALPHABET = "0123456789abcdefghijklmnopqrstuv";

  private final Clock clock;
  private final RandomGenerator random;

  public Ids(Clock clock, RandomGenerator random) {
    this.clock = clock;
    this.random = random;
  }

  public Id sandbox() {
    return next("sbx");
  }

  public Id call() {
    return next("call");
  }

  public Id key() {
    return next("key");
  }

  public Id tenant() {
    return next("ten");
  }

  private Id next(String kind) {
    StringBuilder id = new StringBuilder(32).append(kind);
    long millis = clock.millis();
    for (int shift = 45; shift >= 0; shift -= 5) {
      id.append(ALPHABET.charAt((int) (millis >>> shift) & 31));
    }
    long bits = random.nextLong();
    for (int i = 0; i < 12; i++) {
      id.append(ALPHABET.charAt((int) (bits >>> (5 * i)) & 31));
    }
    return new Id(id.toString());
  }
}
