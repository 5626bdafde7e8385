package dev.foredeck.core;

import java.time.Duration;

/// Every bound on what a client or a sandbox can grow, in one place, with the problem that passing
/// it returns. Bounds of the wire to the agent are in [dev.foredeck.protocol.Limits], those of
/// egress in the gateway's own record.
///
/// @param bodyBytes JSON body of a request: 413 `body-too-large`
/// @param jsonDepth nesting of a JSON body: 400 `too-deep`
/// @param headerBytes request head: 431
/// @param uploadBytes one file upload: 413 `file-too-large`
/// @param inlineFiles files in a create request: 400 `too-large`
/// @param inlineFileBytes all of those together: 400 `too-large`
/// @param envEntries environment variables: 400 `too-large`
/// @param labels labels of a sandbox: 400 `too-large`
/// @param labelBytes of a label's key or value: 400 `too-large`
/// @param outputs paths to copy out: 400 `too-large`
/// @param inlineOutputBytes a copied-out file that is inline in answers and events; larger ones by
///   reference
/// @param outputFileBytes a copied-out file at most; a larger one is named as missing with the
///   reason
/// @param resultTailBytes tail of a channel in a call's JSON: `truncated`
/// @param callOutputBytes recorded output of a channel of a call: event `output.truncated`
/// @param sandboxesPerTenant live sandboxes: 429 `sandbox-quota`
/// @param sandboxesPerOwner live sandboxes of this replica: 429 `sandbox-quota`
/// @param callsPerSandbox live calls: 429 `call-quota`
/// @param feeds live feeds of a process: 429 `feed-quota`
/// @param feedsPerTenant live feeds of one tenant: 429 `feed-quota`
/// @param requests requests in work at once: 429 `busy`
/// @param launches launches in work at once: others wait
/// @param pageSize entries of a page
/// @param defaultTtl and `maxTtl` of a sandbox: 400 `too-large`
/// @param defaultTimeout of a foreground process
/// @param grace between TERM and KILL
public record Limits(
    int bodyBytes,
    int jsonDepth,
    int headerBytes,
    long uploadBytes,
    int inlineFiles,
    int inlineFileBytes,
    int envEntries,
    int labels,
    int labelBytes,
    int outputs,
    int inlineOutputBytes,
    int outputFileBytes,
    int resultTailBytes,
    long callOutputBytes,
    int sandboxesPerTenant,
    int sandboxesPerOwner,
    int callsPerSandbox,
    int feeds,
    int feedsPerTenant,
    int requests,
    int launches,
    int pageSize,
    Duration defaultTtl,
    Duration maxTtl,
    Duration defaultTimeout,
    Duration grace) {

  public static final Limits DEFAULT =
      new Limits(
          16 * 1024 * 1024,
          64,
          32 * 1024,
          1024L * 1024 * 1024,
          64,
          8 * 1024 * 1024,
          128,
          32,
          256,
          32,
          256 * 1024,
          16 * 1024 * 1024,
          1024 * 1024,
          64L * 1024 * 1024,
          200,
          200,
          48,
          4096,
          2048,
          1024,
          4,
          200,
          Duration.ofMinutes(15),
          Duration.ofHours(24),
          Duration.ofSeconds(60),
          Duration.ofSeconds(5));

  /// The same, but for how many sandboxes may be alive.
  public Limits withSandboxes(int perTenant, int perOwner) {
    return new Limits(
        bodyBytes,
        jsonDepth,
        headerBytes,
        uploadBytes,
        inlineFiles,
        inlineFileBytes,
        envEntries,
        labels,
        labelBytes,
        outputs,
        inlineOutputBytes,
        outputFileBytes,
        resultTailBytes,
        callOutputBytes,
        perTenant,
        perOwner,
        callsPerSandbox,
        feeds,
        feedsPerTenant,
        requests,
        launches,
        pageSize,
        defaultTtl,
        maxTtl,
        defaultTimeout,
        grace);
  }
}
