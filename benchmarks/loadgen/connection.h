// A connection: its socket, what waits to be written, and the streams that it carries.
//
// The k-th stream of connection j is streams[j + k * n_connections]. A protocol is told when the connection stands, what
// has come, and that the server has closed it; it puts into `out` what is to be written.
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"

typedef enum { UNOPENED, CONNECTING, OPEN, CLOSED } ConnectionState;

typedef struct {
  ConnectionState state;
  int fd, number;
  int wanted;     // how many of its streams are to run
  bool writing;   // whether epoll is asked for room to write
  Bytes in, out;  // what has come and is no whole yet; what the socket has not taken
  void *protocol; // the protocol's own
} Connection;

typedef struct {
  const char *name;
  void (*opened)(Connection *);
  void (*wanted)(Connection *); // one more stream; only where a connection carries many
  void (*received)(Connection *, char *, size_t);
  void (*left)(Connection *); // the server has closed it
} Protocol;

static const Protocol *protocol;
static Connection *connections;
static int n_connections;
static int poller;
static char host[64], path[2048];
static int port, receive_buffer;
static Bytes extra_headers; // each "Name: value\r\n"
static const char *message = "";

static Stream *stream_of(const Connection *c, int k) { return &streams[c->number + k * n_connections]; }

static void close_connection(Connection *c, const char *error) {
  if (c->state == CLOSED) return;
  if (c->state != UNOPENED) close(c->fd);
  c->state = CLOSED;
  for (int k = 0; k < c->wanted; k++) stream_ended(stream_of(c, k), error ? error : "the connection was closed");
  bytes_free(&c->in);
  bytes_free(&c->out);
}

static void watch(Connection *c, int operation, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = c};
  epoll_ctl(poller, operation, c->fd, &event);
}

static void flush(Connection *c) {
  if (c->state != OPEN) return;
  if (c->out.n) {
    ssize_t n = send(c->fd, c->out.at, c->out.n, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
      close_connection(c, strerror(errno));
      return;
    }
    if (n > 0) bytes_drop(&c->out, (size_t)n);
  }
  if (c->writing != (c->out.n > 0)) {
    c->writing = !c->writing;
    watch(c, EPOLL_CTL_MOD, c->writing ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }
}

static void open_connection(Connection *c) {
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd < 0) {
    fprintf(stderr, "loadgen: socket: %s; with EMFILE, raise ulimit -n\n", strerror(errno));
    exit(2);
  }
  int one = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (receive_buffer) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  inet_pton(AF_INET, host, &address.sin_addr);
  c->state = CONNECTING;
  if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
    close_connection(c, strerror(errno));
    return;
  }
  watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void connection_stands(Connection *c) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error) {
    close_connection(c, strerror(error));
    return;
  }
  c->state = OPEN;
  watch(c, EPOLL_CTL_MOD, EPOLLIN);
  protocol->opened(c);
  flush(c);
}

static void read_connection(Connection *c) {
  static char buffer[1 << 18];
  ssize_t n = recv(c->fd, buffer, sizeof buffer - 1, 0);
  if (n < 0) {
    if (errno != EAGAIN) close_connection(c, strerror(errno));
    return;
  }
  if (n == 0) {
    protocol->left(c);
    close_connection(c, "the server closed before the end");
    return;
  }
  buffer[n] = 0;
  look_at_the_clock();
  n_reads++;
  n_bytes += n;
  protocol->received(c, buffer, (size_t)n);
  flush(c);
}

static void start_stream(int i) {
  Connection *c = &connections[i % n_connections];
  stream_started(&streams[i]);
  if (c->state == CLOSED) {
    stream_ended(&streams[i], "the connection was closed");
    return;
  }
  c->wanted++;
  if (c->state == UNOPENED) {
    open_connection(c);
  } else if (c->state == OPEN) {
    protocol->wanted(c);
    flush(c);
  }
}
