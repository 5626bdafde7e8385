/// The governed way to the web: one HTTP proxy per sandbox, on a unix socket of its own.
///
/// One connection carries one request, on both sides. That costs a connect on a unix socket and
/// buys the strongest defence against request smuggling: there is no second request for a
/// mis-framed first one to become. Bodies are re-framed, never passed on as they came.
///
/// A reader starts at [HttpEgressGateway], follows [Connection], and finds what may be reached in
/// [Destinations] and [AddressRules].
///
/// What a tunnel cannot show is not governed here: the gateway compares the name of the TLS
/// ClientHello with that of the CONNECT, and does not see what is asked inside (a different `Host`
/// at a server that serves many names, or the inner name of Encrypted Client Hello, whose outer
/// name it does check). Hosts where that matters need interception.
@NullMarked
package dev.foredeck.egress;

import org.jspecify.annotations.NullMarked;
