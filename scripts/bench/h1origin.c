/*
 * h1origin: the server behind proxies that speak HTTP/1.1 to it; one thread.
 *
 *     h1origin PORT COUNTERS LARGE_BYTES
 *
 * GET /small and GET /large are answered from memory, all else is a 404; requests have no content. It shares a core with the
 * load generator, so it costs as little as a server can: a third of what nginx takes for the same. What it leaves over is
 * load for the proxy, which has to be the one that is busy. COUNTERS is a file that holds the number of connections and
 * that of requests, as two 64-bit integers, at any time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BODY = 128, HEAD_MAX = 8192, EVENTS = 256, BACKLOG = 4096 };

struct text {
    char *bytes;
    size_t length;
};

struct connection {
    int fd;
    size_t held;
    /* What is left of a response that the peer had no room for. */
    const char *rest;
    size_t rest_length;
    char head[HEAD_MAX];
};

static struct text small, large, missing;
static struct { uint64_t connections, requests; } *counters;
static int poller;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct text response(const char *status, const char *type, const char *content, size_t length) {
    char *head;
    int head_length = asprintf(&head,
                               "HTTP/1.1 %s\r\nServer: h1origin\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: %s\r\n"
                               "Content-Length: %zu\r\nConnection: keep-alive\r\n\r\n",
                               status, type, length);
    if (head_length < 0) die("asprintf");
    struct text text = {malloc(head_length + length), head_length + length};
    if (!text.bytes) die("malloc");
    memcpy(text.bytes, head, head_length);
    memcpy(text.bytes + head_length, content, length);
    free(head);
    return text;
}

static void close_connection(struct connection *connection) {
    close(connection->fd);
    free(connection);
}

static bool starts(const struct connection *connection, const char *with) {
    return strncmp(connection->head, with, strlen(with)) == 0;
}

/* Sends as much as there is room for. False: the connection is gone. */
static bool send_rest(struct connection *connection) {
    while (connection->rest_length) {
        ssize_t sent = send(connection->fd, connection->rest, connection->rest_length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno != EAGAIN) return false;
            struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = connection};
            return epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event) == 0;
        }
        connection->rest += sent;
        connection->rest_length -= sent;
    }
    return true;
}

/* Answers the requests that are there whole. False: the connection is gone. */
static bool answer(struct connection *connection) {
    char *end;
    while (!connection->rest_length && (end = memmem(connection->head, connection->held, "\r\n\r\n", 4))) {
        counters->requests++;
        struct text text = starts(connection, "GET /small ") ? small : starts(connection, "GET /large ") ? large : missing;
        size_t used = end + 4 - connection->head;
        memmove(connection->head, end + 4, connection->held - used);
        connection->held -= used;
        connection->rest = text.bytes;
        connection->rest_length = text.length;
        if (!send_rest(connection)) return false;
    }
    return true;
}

static bool serve(struct connection *connection, uint32_t events) {
    if (events & EPOLLOUT) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        if (epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event) || !send_rest(connection)) return false;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && connection->held < HEAD_MAX) {
        ssize_t count = recv(connection->fd, connection->head + connection->held, HEAD_MAX - connection->held, MSG_DONTWAIT);
        if (count == 0 || (count < 0 && errno != EAGAIN)) return false;
        if (count > 0) connection->held += count;
    }
    return answer(connection) && (connection->rest_length || connection->held < HEAD_MAX);
}

static void accept_one(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) return;
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) die("calloc");
    connection->fd = fd;
    counters->connections++;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: h1origin PORT COUNTERS LARGE_BYTES\n");
        return 2;
    }
    int file = open(argv[2], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0 || ftruncate(file, sizeof *counters) < 0) die(argv[2]);
    counters = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (counters == MAP_FAILED) die("mmap");
    size_t large_bytes = strtoul(argv[3], NULL, 10);
    char *filling = malloc(large_bytes), body[BODY];
    if (!filling) die("malloc");
    memset(filling, 'x', large_bytes);
    memset(body, 'x', sizeof body);
    small = response("200 OK", "text/plain", body, sizeof body);
    large = response("200 OK", "application/octet-stream", filling, large_bytes);
    missing = response("404 Not Found", "text/plain", "", 0);

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, BACKLOG)) die("listen");
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event)) die("epoll");
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection) accept_one(listener);
            else if (!serve(connection, events[i].events)) close_connection(connection);
        }
    }
}
