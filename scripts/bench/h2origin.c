/*
 * h2origin: the server behind proxies that speak HTTP/2 to it, by prior knowledge; one thread.
 *
 *     h2origin PORT COUNTERS
 *
 * Has a short text at /small, and answers the unary gRPC call /bench.Echo/Unary, whose request has to be a message of
 * the right length, with a message and a status in trailers. All else is a 400. HPACK, flow control and framing are
 * libnghttp2's. It costs a sixth of what nginx takes for the same, so that it is the proxy that is busy, and unlike
 * nghttpd it counts: COUNTERS is a file that holds the number of connections and that of requests, as two 64-bit
 * integers, at any time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BODY = 128,
    /* The longest frame that libnghttp2 sends by default. */
    FRAME_MAX = 9 + 16384,
    OUT_MAX = 4 * FRAME_MAX,
    STREAMS_MAX = 1024,
    WINDOW = 1 << 24,
};

/* What a request is for, as far as its head has said. */
enum target { UNKNOWN, SMALL, UNARY };

/* Lives in the place that the session keeps for a stream: no bytes beyond a pointer's, and nothing to free. */
union stream {
    struct {
        uint32_t target;
        uint32_t bytes; /* of the request's content that arrived, then of the response's that were sent */
    } is;
    void *pointer;
};
_Static_assert(sizeof(union stream) == sizeof(void *), "a stream's state takes a pointer's place");

struct connection {
    int fd;
    nghttp2_session *session;
    size_t len, sent;
    uint8_t out[OUT_MAX];
};

static struct { uint64_t connections, requests; } *counters;
static uint8_t text[BODY], message[BODY];
static char date[64];
static time_t date_of;

static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("h2origin: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static union stream stream_of(nghttp2_session *session, int32_t id) {
    return (union stream){.pointer = nghttp2_session_get_stream_user_data(session, id)};
}

static void store(nghttp2_session *session, int32_t id, union stream stream) {
    nghttp2_session_set_stream_user_data(session, id, stream.pointer);
}

static nghttp2_nv field(const char *name, const char *value) {
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
                        NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *user) {
    (void)user;
    union stream stream = stream_of(session, id);
    size_t left = BODY - stream.is.bytes, part = room < left ? room : left;
    memcpy(to, (const uint8_t *)source->ptr + stream.is.bytes, part);
    stream.is.bytes += (uint32_t)part;
    store(session, id, stream);
    if (stream.is.bytes < BODY) return (ssize_t)part;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (stream.is.target == UNARY) {
        nghttp2_nv trailers[] = {field("grpc-status", "0")};
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (nghttp2_submit_trailer(session, id, trailers, 1) != 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return (ssize_t)part;
}

/* The request is complete. */
static int respond(nghttp2_session *session, int32_t id) {
    counters->requests++;
    union stream stream = stream_of(session, id);
    uint32_t arrived = stream.is.bytes;
    stream.is.bytes = 0;
    store(session, id, stream);
    nghttp2_data_provider body = {.read_callback = read_body};
    if (stream.is.target == SMALL && arrived == 0) {
        nghttp2_nv head[] = {field(":status", "200"), field("server", "h2origin"), field("date", date),
                             field("content-type", "text/plain"), field("content-length", "128")};
        body.source.ptr = text;
        return nghttp2_submit_response(session, id, head, sizeof head / sizeof *head, &body);
    }
    if (stream.is.target == UNARY && arrived == BODY) {
        nghttp2_nv head[] = {field(":status", "200"), field("server", "h2origin"), field("date", date),
                             field("content-type", "application/grpc")};
        body.source.ptr = message;
        return nghttp2_submit_response(session, id, head, sizeof head / sizeof *head, &body);
    }
    nghttp2_nv head[] = {field(":status", "400")};
    return nghttp2_submit_response(session, id, head, 1, NULL);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user) {
    (void)flags, (void)user;
    static const char small[] = "/small", unary[] = "/bench.Echo/Unary";
    if (name_len != 5 || memcmp(name, ":path", 5) != 0) return 0;
    union stream stream = {.pointer = NULL};
    if (value_len == sizeof small - 1 && memcmp(value, small, value_len) == 0) stream.is.target = SMALL;
    if (value_len == sizeof unary - 1 && memcmp(value, unary, value_len) == 0) stream.is.target = UNARY;
    store(session, frame->hd.stream_id, stream);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t len, void *user) {
    (void)flags, (void)bytes, (void)user;
    union stream stream = stream_of(session, id);
    stream.is.bytes += (uint32_t)len;
    store(session, id, stream);
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)user;
    bool of_request = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    if (of_request && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) return respond(session, frame->hd.stream_id);
    return 0;
}

static nghttp2_session_callbacks *callbacks(void) {
    nghttp2_session_callbacks *all;
    if (nghttp2_session_callbacks_new(&all) != 0) die("out of memory");
    nghttp2_session_callbacks_set_on_header_callback(all, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(all, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(all, on_frame);
    return all;
}

/* Sends until there is nothing more, or no room. False when the connection is over. */
static bool flush(struct connection *c) {
    for (;;) {
        while (c->sent < c->len) {
            ssize_t part = send(c->fd, c->out + c->sent, c->len - c->sent, MSG_NOSIGNAL);
            if (part < 0) return errno == EAGAIN;
            c->sent += (size_t)part;
        }
        c->sent = c->len = 0;
        while (c->len + FRAME_MAX <= OUT_MAX) {
            const uint8_t *bytes;
            ssize_t part = nghttp2_session_mem_send(c->session, &bytes);
            if (part < 0) return false;
            if (part == 0) break;
            memcpy(c->out + c->len, bytes, (size_t)part);
            c->len += (size_t)part;
        }
        if (c->len == 0) return nghttp2_session_want_read(c->session) || nghttp2_session_want_write(c->session);
    }
}

/* Reads all there is: readiness is told once (EPOLLET). False when the connection is over. */
static bool take(struct connection *c) {
    static uint8_t buffer[65536];
    for (;;) {
        ssize_t len = recv(c->fd, buffer, sizeof buffer, 0);
        if (len < 0) return errno == EAGAIN;
        if (len == 0 || nghttp2_session_mem_recv(c->session, buffer, (size_t)len) != len) return false;
        if (!flush(c)) return false;
    }
}

static void accept_all(int listener, int poller, nghttp2_session_callbacks *all) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        counters->connections++;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = malloc(sizeof *c);
        if (!c || nghttp2_session_server_new(&c->session, all, c) != 0) die("out of memory");
        c->fd = fd;
        c->len = c->sent = 0;
        nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX}};
        nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 1);
        nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, WINDOW);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl: %s", strerror(errno));
    }
}

static void tell_date(void) {
    time_t now = time(NULL);
    if (now == date_of) return;
    date_of = now;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime(&now));
}

int main(int argc, char **argv) {
    if (argc != 3) die("usage: h2origin PORT COUNTERS");
    memset(text, 'x', BODY);
    memset(message, 'x', BODY);
    memcpy(message, (uint8_t[]){0, 0, 0, 0, BODY - 5}, 5);

    int file = open(argv[2], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0 || ftruncate(file, sizeof *counters) < 0) die("%s: %s", argv[2], strerror(errno));
    counters = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (counters == MAP_FAILED) die("mmap: %s", strerror(errno));

    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0)
        die("port %s: %s", argv[1], strerror(errno));
    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &wanted) < 0) die("epoll: %s", strerror(errno));
    nghttp2_session_callbacks *all = callbacks();
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        tell_date();
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener, poller, all);
            } else if (!take(c) || !flush(c)) {
                nghttp2_session_del(c->session);
                close(c->fd);
                free(c);
            }
        }
    }
}
