@NullMarked
package dev.foredeck.policy;

import org.jspecify.annotations.NullMarked;
