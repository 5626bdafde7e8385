package dev.foredeck.core;

import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.ApiKey;
import java.security.SecureRandom;
import java.time.Clock;
import java.util.Base64;
import java.util.List;
import java.util.Optional;

/// API keys on the store. A secret is `fdk_` and 256 random bits; only its SHA-256 is kept, which
/// is enough for a secret with that much entropy, and makes the look-up an index probe that leaks
/// no timing of the secret itself.
public final class ApiKeys implements Keys {
  private static final int SECRET_BYTES = 32;

  private final Store store;
  private final Clock clock;
  private final Ids ids;
  private final SecureRandom random;

  public ApiKeys(Store store, Clock clock, Ids ids, SecureRandom random) {
    this.store = store;
    this.clock = clock;
    this.ids = ids;
    this.random = random;
  }

  @Override
  public Principal authenticate(String secret) {
    return store
        .keyByHash(Hashes.sha256(secret))
        .filter(key -> key.revokedAt().isEmpty())
        .map(key -> new Principal(key.tenant(), key.id(), key.name(), key.role()))
        .orElseThrow(() ->
            new ProblemException(
                new Problem.Unauthenticated("this key is not known, or it was revoked")));
  }

  @Override
  public Created create(Operation operation, String name, Role role) {
    requireOperator(operation);
    return create(operation.principal().tenant(), name, role);
  }

  /// For the first key of a deployment, which nobody could ask for.
  public Created create(Id tenant, String name, Role role) {
    byte[] bits = new byte[SECRET_BYTES];
    random.nextBytes(bits);
    String secret = "fdk_" + Base64.getUrlEncoder().withoutPadding().encodeToString(bits);
    ApiKey key =
        new ApiKey(
            ids.key(),
            tenant,
            name,
            role,
            Hashes.sha256(secret),
            clock.instant(),
            Optional.empty());
    store.createKey(key);
    return new Created(key, secret);
  }

  @Override
  public List<ApiKey> list(Operation operation) {
    requireOperator(operation);
    return store.keys(operation.principal().tenant());
  }

  @Override
  public void revoke(Operation operation, Id key) {
    requireOperator(operation);
    if (!store.revokeKey(operation.principal().tenant(), key, clock.instant())
        && store
            .key(key)
            .filter(k -> k.tenant().equals(operation.principal().tenant()))
            .isEmpty()) {
      throw new ProblemException(
          new Problem.NotFound("key-not-found", "there is no key " + key + " for this tenant"));
    }
  }

  private static void requireOperator(Operation operation) {
    if (operation.principal().role() != Role.OPERATOR) {
      throw new ProblemException(
          new Problem.Forbidden(
              "keys are managed with a key of role operator; this one has role "
                  + operation.principal().role().wireName()));
    }
  }
}
