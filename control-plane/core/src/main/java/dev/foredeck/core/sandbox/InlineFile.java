package dev.foredeck.core.sandbox;

/// A file that came with the request and is written before the first call.
///
/// @param path relative to the workspace
public record InlineFile(String path, byte[] bytes) {}
