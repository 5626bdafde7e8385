@NullMarked
package dev.foredeck.agent;

import org.jspecify.annotations.NullMarked;
