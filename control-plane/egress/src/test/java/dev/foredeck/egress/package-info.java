@NullMarked
package dev.foredeck.egress;

import org.jspecify.annotations.NullMarked;
