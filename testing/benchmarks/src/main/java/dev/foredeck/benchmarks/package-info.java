/// Measurements, each beside a baseline from the same run. None of them is a test.
@NullMarked
package dev.foredeck.benchmarks;

import org.jspecify.annotations.NullMarked;
