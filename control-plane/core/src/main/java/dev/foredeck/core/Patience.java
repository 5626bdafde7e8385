package dev.foredeck.core;

import java.time.Duration;

/// How long the control plane waits for what is behind it, in one place: for a backend, for an
/// agent (which may be lying), for itself to look again. A test that breaks one of them need not
/// take its time.
///
/// @param launch a driver's launch
/// @param destroy a driver's destroy
/// @param inspect a driver's inspect
/// @param connect a greeted connection
/// @param answer an agent's answer to one request, and each step of a file's stream
/// @param ready a sandbox that is to become ready before a call is done
/// @param unreachable how long a sandbox whose backend says that it runs may refuse to talk before
///   its calls are given up
/// @param copyOut one copied-out file
/// @param overrun how long after a process's timeout and grace its end may come
/// @param stop for a loop's call runners to let go
/// @param watch how often the backend is asked whether a sandbox is still there
/// @param retry first wait before something is tried again
/// @param mostRetry longest wait before something is tried again
/// @param keyCheck how often an open feed looks whether its key was revoked
public record Patience(
    Duration launch,
    Duration destroy,
    Duration inspect,
    Duration connect,
    Duration answer,
    Duration ready,
    Duration unreachable,
    Duration copyOut,
    Duration overrun,
    Duration stop,
    Duration watch,
    Duration retry,
    Duration mostRetry,
    Duration keyCheck) {

  public static final Patience DEFAULT =
      new Patience(
          Duration.ofSeconds(60),
          Duration.ofSeconds(60),
          Duration.ofSeconds(10),
          Duration.ofSeconds(20),
          Duration.ofSeconds(30),
          Duration.ofSeconds(60),
          Duration.ofSeconds(30),
          Duration.ofSeconds(30),
          Duration.ofSeconds(10),
          Duration.ofSeconds(10),
          Duration.ofSeconds(2),
          Duration.ofMillis(100),
          Duration.ofSeconds(10),
          Duration.ofSeconds(2));
}
