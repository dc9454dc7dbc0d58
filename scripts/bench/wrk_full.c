/*
 * Loaded into wrk (LD_PRELOAD) where full handshakes are measured. wrk uses the TLS object of a connection for the next
 * one, and with it the session: after the first connection it would only resume. Here the session is forgotten between
 * the two. And so that nobody has to believe it: a connection that was resumed all the same ends wrk, and the run.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* As in <openssl/ssl.h>, which this then needs no package for. */
int SSL_set_session(void *ssl, void *session);
int SSL_session_reused(const void *ssl);

/* What wrk calls when a connection has ended. */
int SSL_clear(void *ssl) {
    static int (*clear)(void *);
    if (!clear) clear = (int (*)(void *))dlsym(RTLD_NEXT, "SSL_clear");
    if (SSL_session_reused(ssl)) {
        fputs("a TLS session was resumed where every handshake has to be a full one\n", stderr);
        exit(1);
    }
    SSL_set_session(ssl, NULL);
    return clear(ssl);
}
