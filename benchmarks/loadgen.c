// loadgen: reads many event streams at once, and measures them. One thread, no dependencies, Linux.
//
//   cc -O2 -o loadgen loadgen.c
//   loadgen sse|ws|h2 --url http://127.0.0.1:PORT/path?query [options]
//
// `sse` reads server-sent events over HTTP/1.1, `h2` the same over HTTP/2 with prior knowledge, `ws` messages of a
// WebSocket. See USAGE for the options. Output: one line of JSON; exit 1 where a stream broke, lacked or mixed events.
//
// Here are the options and the loop; loadgen/ has what is measured, the connections and the three protocols.
#define _GNU_SOURCE

#include "loadgen/http1.h"
#include "loadgen/http2.h"
#include "loadgen/websocket.h"

#include <sys/resource.h>

static const char USAGE[] =
  "usage: loadgen sse|ws|h2 --url http://127.0.0.1:PORT/path [options]\n"
  "  --streams N        how many streams to read (1)\n"
  "  --connections C    h2: over how many connections they go (1)\n"
  "  --message TEXT     ws: what is sent to start a stream\n"
  "  --ramp R           start R streams a second (0: all at once)\n"
  "  --expect N         how many events each stream has to bring; others are reported as bad_streams\n"
  "  --duration S       stop after S seconds (60)\n"
  "  --hold             print {\"ready\": N} when every stream has had its first event\n"
  "  --settle S         and S seconds have gone by since then (0)\n"
  "  --steady S         the same; from then on measure for S seconds, and only that; keep the streams until stdin ends\n"
  "  --rcvbuf B         SO_RCVBUF of every socket\n"
  "  --header 'K: V'    another field of the request (repeatable)\n"
  "An event counts once it has come whole. From \"ts\" (Unix ms) in its data the latency is taken, from \"due\" the\n"
  "lateness, and from its id, a number that rises by one, whether the order is right.\n";

static double ramp, duration = 60, settle, steady;
static bool hold, ready;
static long long expected = -1;

static void misused(const char *said, const char *what) {
  fprintf(stderr, "loadgen: %s: %s\n%s", said, what, USAGE);
  exit(2);
}

static double number(const char *option, const char *value) {
  char *end;
  double result = strtod(value, &end);
  if (end == value || *end || result < 0) misused("not a number of 0 or more", option);
  return result;
}

static void read_url(const char *url) {
  if (sscanf(url, "http://%63[^:/]:%d%2047s", host, &port, path) < 3) misused("not http://ADDRESS:PORT/path", url);
  struct in_addr address;
  if (!strcmp(host, "localhost")) strcpy(host, "127.0.0.1");
  if (inet_pton(AF_INET, host, &address) != 1) misused("not an IPv4 address", host);
}

static void read_header(const char *field) {
  if (!strchr(field, ':')) misused("a header is 'Name: value'", field);
  bytes_add(&extra_headers, field, strlen(field));
  bytes_add(&extra_headers, "\r\n", 2);
}

static void read_options(int argc, char **argv) {
  const Protocol *known[] = {&http1, &http2, &websocket};
  for (int i = 0; i < 3; i++)
    if (argc > 1 && !strcmp(argv[1], known[i]->name)) protocol = known[i];
  if (!protocol) misused("not a protocol", argc > 1 ? argv[1] : "nothing");
  int wished = 1;
  for (int i = 2; i < argc; i++) {
    const char *option = argv[i];
    if (!strcmp(option, "--hold")) {
      hold = true;
      continue;
    }
    if (i + 1 == argc) misused("an option lacks its value, or is unknown", option);
    const char *value = argv[++i];
    if (!strcmp(option, "--url")) read_url(value);
    else if (!strcmp(option, "--header")) read_header(value);
    else if (!strcmp(option, "--message")) message = value;
    else if (!strcmp(option, "--streams")) n_streams = (int)number(option, value);
    else if (!strcmp(option, "--connections")) wished = (int)number(option, value);
    else if (!strcmp(option, "--ramp")) ramp = number(option, value);
    else if (!strcmp(option, "--expect")) expected = (long long)number(option, value);
    else if (!strcmp(option, "--duration")) duration = number(option, value);
    else if (!strcmp(option, "--settle")) settle = number(option, value);
    else if (!strcmp(option, "--steady")) steady = number(option, value);
    else if (!strcmp(option, "--rcvbuf")) receive_buffer = (int)number(option, value);
    else misused("unknown option", option);
  }
  if (!port) misused("missing", "--url");
  if (n_streams < 1 || wished < 1) misused("at least 1", "--streams and --connections");
  if (strlen(message) > 65535) misused("at most 65535 bytes", "--message");
  n_connections = protocol != &http2 ? n_streams : wished < n_streams ? wished : n_streams;
}

static void raise_limit_of_files(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit)) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

static void serve_events(int timeout_ms) {
  struct epoll_event events[512];
  int n = epoll_wait(poller, events, 512, timeout_ms);
  for (int i = 0; i < n; i++) {
    Connection *c = events[i].data.ptr;
    if (c->state == CONNECTING) {
      connection_stands(c);
    } else if (c->state == OPEN) {
      if (events[i].events & EPOLLOUT) flush(c);
      if (c->state == OPEN && events[i].events & ~(uint32_t)EPOLLOUT) read_connection(c);
    }
  }
}

// Whether it is time to say that all streams stand.
static bool all_stand(void) {
  static double since;
  if (ready || !(hold || steady > 0) || n_first < n_streams) return false;
  if (!since) since = clock_seconds(CLOCK_MONOTONIC);
  return ready = clock_seconds(CLOCK_MONOTONIC) - since >= settle;
}

// Until every stream has ended, or time is up.
static void run(void) {
  int n_started = 0;
  double until = began + duration;
  while (n_ended < n_streams) {
    double left = until - clock_seconds(CLOCK_MONOTONIC);
    if (left <= 0) return;
    while (n_started < n_streams && (ramp <= 0 || n_started <= (duration - left) * ramp)) start_stream(n_started++);
    serve_events(n_started < n_streams ? 1 : left > 1 ? 1000 : (int)(left * 1000) + 1);
    if (!all_stand()) continue;
    printf("{\"ready\":%d,\"t\":%.3f}\n", n_first, clock_seconds(CLOCK_MONOTONIC) - began);
    fflush(stdout);
    if (steady > 0) {
      forget_the_past();
      until = began + steady;
    }
  }
}

int main(int argc, char **argv) {
  read_options(argc, argv);
  raise_limit_of_files();
  poller = epoll_create1(EPOLL_CLOEXEC);
  streams = must(calloc((size_t)n_streams, sizeof *streams));
  connections = must(calloc((size_t)n_connections, sizeof *connections));
  for (int i = 0; i < n_connections; i++) connections[i].number = i;
  began = clock_seconds(CLOCK_MONOTONIC);
  run();
  bool good = report(expected, n_connections, steady > 0 && ready);
  if (steady > 0) {
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {}
  }
  return good ? 0 : 1;
}
