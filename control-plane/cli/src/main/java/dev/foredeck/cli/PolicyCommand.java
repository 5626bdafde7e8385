package dev.foredeck.cli;

import picocli.CommandLine.Command;

/// `foredeck policy`: tools that read files and need no server. A group: it does nothing itself.
@Command(
    name = "policy",
    mixinStandardHelpOptions = true,
    synopsisSubcommandLabel = "COMMAND",
    description = "Checks and tests policies.")
final class PolicyCommand {}
