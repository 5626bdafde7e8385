package dev.foredeck.agent;

import java.io.IOException;

/// A system call that failed.
final class KernelException extends IOException {
  private static final long serialVersionUID = 1;

  private final int errno;

  KernelException(String call, int errno, String text) {
    super(call + ": " + text);
    this.errno = errno;
  }

  int errno() {
    return errno;
  }
}
