/*
 * paced: an open-loop HTTP/1.1 load generator for one host, one thread and a fixed rate.
 *
 *     paced PORT PATH CONNECTIONS RATE SECONDS
 *
 * Request i is due at start + i / RATE, on connection i mod CONNECTIONS, whether or not the proxy kept up.
 * Latency counts from the due time, not from the moment of sending, so a stall is charged to every request that
 * should have been sent during it ("coordinated omission" hides exactly these). A connection carries one request
 * at a time; those that come due meanwhile wait for their turn, and their clocks run.
 *
 * Prints one line of JSON. Latencies are microseconds out of a log-linear histogram whose buckets are at most
 * 1/128 wide, relative to their value.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 4096,
    HEAD_MAX = 8192,
    /* 128 linear steps in each of the octaves of a 64-bit count of nanoseconds. */
    STEPS = 128,
    STEPS_LOG2 = 7,
    BUCKETS = (64 - STEPS_LOG2 + 1) * STEPS,
};

static const uint64_t SECOND = 1000000000ull;
/* How long answers may take after the last request was due, before they count as lost. */
static const uint64_t GRACE = 2 * 1000000000ull;

struct connection {
    int fd;
    bool waiting;        /* a request is on the wire */
    uint64_t due;        /* number of requests that came due on this connection */
    uint64_t sent;       /* number of requests sent, <= due */
    size_t head_len;     /* bytes of the response head read so far */
    bool in_body;
    uint64_t body_left;
    bool success;        /* the status of the response being read is 2xx */
    char head[HEAD_MAX + 1];
};

static struct connection connections[CONNECTIONS_MAX];
static uint64_t histogram[BUCKETS];
static uint64_t completed, failed_status, failed_socket;

static char request[1024];
static size_t request_len;
static struct sockaddr_in server;
static int poller;
static uint64_t count, rate, start;

static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("paced: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* When the n-th request of all is due. */
static uint64_t due_at(uint64_t n) { return start + n * SECOND / rate; }

static size_t bucket_of(uint64_t value) {
    if (value < STEPS) return value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - STEPS_LOG2;
    return (size_t)(shift + 1) * STEPS + (size_t)((value >> shift) - STEPS);
}

/* The largest value that falls into `bucket`. */
static uint64_t bucket_top(size_t bucket) {
    if (bucket < STEPS) return bucket;
    unsigned shift = (unsigned)(bucket / STEPS) - 1;
    return ((uint64_t)(bucket % STEPS + STEPS + 1) << shift) - 1;
}

static double quantile_us(double q) {
    uint64_t total = 0, seen = 0;
    for (size_t i = 0; i < BUCKETS; i++) total += histogram[i];
    for (size_t i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (total && (double)seen >= q * (double)total) return (double)bucket_top(i) / 1000.0;
    }
    return 0;
}

static void open_connection(struct connection *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0) die("connect: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0) die("fcntl: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0) die("epoll_ctl: %s", strerror(errno));
    c->waiting = c->in_body = false;
    c->head_len = 0;
}

/* The request in flight is lost; the connection starts over with the next one. */
static void fail(struct connection *c) {
    failed_socket += c->waiting;
    close(c->fd);
    open_connection(c);
}

static void send_if_due(struct connection *c) {
    while (!c->waiting && c->sent < c->due) {
        c->sent++;
        c->waiting = true;
        if (send(c->fd, request, request_len, MSG_NOSIGNAL) == (ssize_t)request_len) return;
        fail(c);
    }
}

static void finish(struct connection *c) {
    uint64_t n = (c->sent - 1) * count + (uint64_t)(c - connections);
    histogram[bucket_of(now() - due_at(n))]++;
    completed++;
    failed_status += !c->success;
    c->waiting = c->in_body = false;
    c->head_len = 0;
}

/*
 * Reads the head once it is complete. Returns its length, 0 when more bytes are needed, and -1 when the response
 * is not one this program understands: it must carry a Content-Length, as the benchmark's origin does.
 */
static ssize_t parse_head(struct connection *c) {
    c->head[c->head_len] = '\0';
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) return c->head_len == HEAD_MAX ? -1 : 0;
    if (strncmp(c->head, "HTTP/1.1 ", 9) != 0) return -1;
    c->success = c->head[9] == '2';
    for (char *line = strstr(c->head, "\r\n"); line < end; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, "content-length:", 15) != 0) continue;
        c->body_left = strtoull(line + 17, NULL, 10);
        return end + 4 - c->head;
    }
    return -1;
}

/* Takes `len` bytes that arrived; false when they are no response. */
static bool take(struct connection *c, const char *bytes, size_t len) {
    while (len > 0) {
        if (!c->waiting) return false;
        if (!c->in_body) {
            size_t room = HEAD_MAX - c->head_len, part = len < room ? len : room, before = c->head_len;
            memcpy(c->head + before, bytes, part);
            c->head_len += part;
            ssize_t head = parse_head(c);
            if (head < 0) return false;
            if (head == 0) return true;
            bytes += (size_t)head - before;
            len -= (size_t)head - before;
            c->in_body = true;
        }
        size_t part = len < c->body_left ? len : (size_t)c->body_left;
        c->body_left -= part;
        bytes += part;
        len -= part;
        if (c->body_left == 0) finish(c);
    }
    return true;
}

static void on_readable(struct connection *c) {
    static char buffer[65536];
    ssize_t len = recv(c->fd, buffer, sizeof buffer, 0);
    if (len < 0 && errno == EAGAIN) return;
    if (len <= 0 || !take(c, buffer, (size_t)len)) fail(c);
    send_if_due(c);
}

/* Runs until `total` requests were answered or lost. Returns the number of nanoseconds from start to end. */
static uint64_t run(uint64_t total) {
    struct epoll_event events[256];
    uint64_t next = 0;
    start = now() + SECOND / 100;
    uint64_t last_moment = due_at(total) + GRACE;
    while (completed + failed_socket < total) {
        uint64_t t = now();
        for (; next < total && due_at(next) <= t; next++) {
            struct connection *c = &connections[next % count];
            c->due++;
            send_if_due(c);
        }
        if (t > last_moment) break;
        uint64_t wake = next < total ? due_at(next) : last_moment;
        t = now();
        uint64_t wait = wake > t ? wake - t : 0;
        struct timespec timeout = {.tv_sec = (time_t)(wait / SECOND), .tv_nsec = (long)(wait % SECOND)};
        int ready = epoll_pwait2(poller, events, 256, &timeout, NULL);
        if (ready < 0 && errno != EINTR) die("epoll_pwait2: %s", strerror(errno));
        for (int i = 0; i < ready; i++) on_readable(events[i].data.ptr);
    }
    return now() - start;
}

int main(int argc, char **argv) {
    if (argc != 6) die("usage: paced PORT PATH CONNECTIONS RATE SECONDS");
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    request_len = (size_t)snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n\r\n", argv[2],
                                   argv[1]);
    count = strtoull(argv[3], NULL, 10);
    rate = strtoull(argv[4], NULL, 10);
    uint64_t total = (uint64_t)((double)rate * atof(argv[5]));
    if (count < 1 || count > CONNECTIONS_MAX || rate < 1 || total < 1 || request_len >= sizeof request)
        die("an argument is out of range");
    /* By default the kernel may deliver a timer 50 us late, which is the size of what is measured here. */
    if (prctl(PR_SET_TIMERSLACK, 1) < 0) die("prctl: %s", strerror(errno));
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) die("epoll_create1: %s", strerror(errno));
    for (uint64_t i = 0; i < count; i++) open_connection(&connections[i]);

    double seconds = (double)run(total) / (double)SECOND;
    printf("{\"requests\": %lu, \"seconds\": %.6f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f, "
           "\"status_errors\": %lu, \"socket_errors\": %lu}\n",
           completed, seconds, quantile_us(0.50), quantile_us(0.99), quantile_us(1.0), failed_status,
           failed_socket + (total - completed - failed_socket));
    return 0;
}
