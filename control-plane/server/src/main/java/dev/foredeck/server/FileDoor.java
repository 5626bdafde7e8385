package dev.foredeck.server;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.Operation;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.gate.Calls;
import dev.foredeck.core.gate.Calls.Download;
import dev.foredeck.protocol.Message.FileInfo;
import dev.foredeck.protocol.Message.FileKind;
import io.vertx.core.buffer.Buffer;
import java.io.IOException;
import java.io.InputStream;
import java.util.Optional;

/// `/v1/sandboxes/{id}/files/{path}`: the workspace as bytes, streamed both ways.
final class FileDoor {
  private static final int CHUNK = 64 * 1024;
  private static final int LIST_DEPTH = 16;

  private final Calls calls;

  FileDoor(Calls calls) {
    this.calls = calls;
  }

  /// `GET`: a file's bytes, a directory's listing, or with `?stat=1` what is there.
  void get(Exchange exchange) throws Exception {
    Id sandbox = exchange.id();
    String path = exchange.path(true);
    Operation operation = exchange.operation();
    if (exchange.queryFlag("stat")) {
      exchange.reply(200, Encode.file(calls.statFile(operation, sandbox, path)));
    } else if (path.isEmpty() || exchange.queryFlag("list")) {
      list(exchange, operation, sandbox, path);
    } else {
      read(exchange, operation, sandbox, path);
    }
  }

  private void list(Exchange exchange, Operation operation, Id sandbox, String path)
      throws IOException {
    int depth = (int) exchange.queryLong("depth", 1, 1, LIST_DEPTH);
    exchange.reply(200, Encode.listing(calls.listFiles(operation, sandbox, path, depth)));
  }

  private void read(Exchange exchange, Operation operation, Id sandbox, String path)
      throws IOException {
    Optional<Download> file = open(operation, sandbox, path);
    if (file.isEmpty()) {
      list(exchange, operation, sandbox, path);
      return;
    }
    try (InputStream content = file.get().content()) {
      long size = file.get().info().sizeBytes();
      describe(exchange, file.get().info());
      exchange.header("X-Foredeck-Call", file.get().call().value());
      exchange.beginStream(200, "application/octet-stream", size);
      long left = size;
      while (left > 0) {
        byte[] chunk = content.readNBytes((int) Math.min(CHUNK, left));
        if (chunk.length == 0) {
          // It shrank while it was read: the promised length cannot be kept.
          exchange.cut();
          return;
        }
        exchange.write(Buffer.buffer(chunk));
        left -= chunk.length;
      }
      exchange.end();
    }
  }

  /// Empty when it is a directory: asking the agent once more is for that case only.
  private Optional<Download> open(Operation operation, Id sandbox, String path) {
    try {
      return Optional.of(calls.readFile(operation, sandbox, path));
    } catch (ProblemException e) {
      if (e.problem().code().equals("not-a-file")
          && calls.statFile(operation, sandbox, path).kind() == FileKind.DIRECTORY) {
        return Optional.empty();
      }
      throw e;
    }
  }

  /// `HEAD`: what `GET` would say of it, without the bytes.
  void head(Exchange exchange) throws Exception {
    FileInfo info = calls.statFile(exchange.operation(), exchange.id(), exchange.path(true));
    describe(exchange, info);
    exchange.beginStream(
        200, "application/octet-stream", info.kind() == FileKind.FILE ? info.sizeBytes() : 0);
    exchange.end();
  }

  private static void describe(Exchange exchange, FileInfo info) {
    ObjectNode json = Encode.file(info);
    exchange.header("X-Foredeck-Kind", json.path("kind").asText());
    exchange.header("X-Foredeck-Mode", json.path("mode").asText());
    exchange.header("X-Foredeck-Modified", json.path("modifiedAt").asText());
    CallDoor.untrusted(exchange);
  }

  /// `PUT`: the body becomes the file, as a whole or not at all.
  void put(Exchange exchange) throws Exception {
    Id sandbox = exchange.id();
    String path = exchange.path(false);
    long size = exchange.uploadLength();
    FileInfo info = calls.writeFile(exchange.operation(), sandbox, path, size, exchange.upload());
    exchange.reply(200, Encode.file(info));
  }

  /// `POST ?move-to=`
  void move(Exchange exchange) throws Exception {
    Id sandbox = exchange.id();
    String path = exchange.path(false);
    String target =
        exchange
            .query("move-to")
            .map(text -> WorkspacePath.fromQuery("move-to", text))
            .orElseThrow(() ->
                Exchange.invalid(
                    "query:move-to", "missing-field", "`move-to` is needed: the new path"));
    Operation operation = exchange.operation();
    calls.moveFile(operation, sandbox, path, target);
    exchange.noContent();
  }

  /// `DELETE`
  void remove(Exchange exchange) throws Exception {
    calls.removeFile(
        exchange.operation(), exchange.id(), exchange.path(false), exchange.queryFlag("recursive"));
    exchange.noContent();
  }
}
