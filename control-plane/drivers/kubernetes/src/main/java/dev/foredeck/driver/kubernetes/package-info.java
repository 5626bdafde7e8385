/// Sandboxes as pods of a Kubernetes cluster. The only place that knows fabric8.
@NullMarked
package dev.foredeck.driver.kubernetes;

import org.jspecify.annotations.NullMarked;
