// HTTP/2 with prior knowledge (RFC 9113): several streams a connection, each an event stream in DATA frames.
//
// Requests wait for the server's SETTINGS, and then for room below its limit of concurrent streams.
#pragma once

#include <ctype.h>

#include "connection.h"
#include "sse.h"

typedef struct {
  bool greeted, leaving; // the server's SETTINGS have come; it takes no more requests
  long long limit, unacknowledged;
  int asked, running; // requests sent, and those of them that have not ended
} Http2;

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING_FRAME = 6, GOAWAY = 7, WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, PRIORITY = 32 };
enum { HEADER_TABLE_SIZE = 1, ENABLE_PUSH = 2, MAX_CONCURRENT_STREAMS = 3, INITIAL_WINDOW_SIZE = 4 };

// About what browsers give. Half of it is given back at once, so that no reader who reads holds the server up.
enum { STREAM_WINDOW = 1 << 20, CONNECTION_WINDOW = 16 << 20, FIRST_WINDOW = 65535 };

static void http2_number(Bytes *b, unsigned value) {
  unsigned char bytes[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16), (unsigned char)(value >> 8),
                            (unsigned char)value};
  bytes_add(b, bytes, 4);
}

static void http2_frame(Connection *c, int type, int flags, int id, const void *payload, size_t n) {
  bytes_add_byte(&c->out, (unsigned)(n >> 16));
  bytes_add_byte(&c->out, (unsigned)(n >> 8));
  bytes_add_byte(&c->out, (unsigned)n);
  bytes_add_byte(&c->out, (unsigned)type);
  bytes_add_byte(&c->out, (unsigned)flags);
  http2_number(&c->out, (unsigned)id);
  bytes_add(&c->out, payload, n);
}

static void http2_give_window(Connection *c, int id, long long n) {
  Bytes payload = {0};
  http2_number(&payload, (unsigned)n);
  http2_frame(c, WINDOW_UPDATE, 0, id, payload.at, payload.n);
  bytes_free(&payload);
}

static void http2_setting(Bytes *b, unsigned name, unsigned value) {
  bytes_add_byte(b, 0);
  bytes_add_byte(b, name);
  http2_number(b, value);
}

static void http2_opened(Connection *c) {
  Http2 *h = c->protocol = must(calloc(1, sizeof(Http2)));
  h->limit = n_streams;
  static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  bytes_add(&c->out, preface, sizeof preface - 1);
  Bytes settings = {0};
  http2_setting(&settings, HEADER_TABLE_SIZE, 0); // so that a status is read without a table of what came before
  http2_setting(&settings, ENABLE_PUSH, 0);
  http2_setting(&settings, INITIAL_WINDOW_SIZE, STREAM_WINDOW);
  http2_frame(c, SETTINGS, 0, 0, settings.at, settings.n);
  bytes_free(&settings);
  http2_give_window(c, 0, CONNECTION_WINDOW - FIRST_WINDOW);
}

// HPACK (RFC 7541): literals without indexing, no Huffman code.
static void hpack_string(Bytes *b, const char *text, size_t n, bool lower) {
  if (n < 127) {
    bytes_add_byte(b, (unsigned)n);
  } else {
    size_t rest = n - 127;
    bytes_add_byte(b, 127);
    for (; rest >= 128; rest >>= 7) bytes_add_byte(b, (unsigned)(rest & 127) | 128);
    bytes_add_byte(b, (unsigned)rest);
  }
  for (size_t i = 0; i < n; i++) bytes_add_byte(b, (unsigned)(lower ? tolower(text[i]) : text[i]));
}

static void http2_fields(Bytes *b) {
  char authority[sizeof host + 16];
  int n = snprintf(authority, sizeof authority, "%s:%d", host, port);
  bytes_add(b, "\x82\x86\x04", 3); // :method GET, :scheme http, :path
  hpack_string(b, path, strlen(path), false);
  bytes_add(b, "\x01", 1); // :authority
  hpack_string(b, authority, (size_t)n, false);
  bytes_add(b, "\x0f\x04", 2); // accept
  hpack_string(b, "text/event-stream", 17, false);
  for (const char *line = extra_headers.at; line && *line; line = strchr(line, '\n') + 1) {
    const char *colon = strchr(line, ':'), *value = colon + 1;
    value += *value == ' ';
    bytes_add_byte(b, 0);
    hpack_string(b, line, (size_t)(colon - line), true);
    hpack_string(b, value, strcspn(value, "\r"), false);
  }
}

static void http2_ask(Connection *c) {
  Http2 *h = c->protocol;
  static Bytes fields;
  if (!fields.n) http2_fields(&fields);
  while (h->greeted && !h->leaving && h->asked < c->wanted && h->running < h->limit) {
    http2_frame(c, HEADERS, END_STREAM | END_HEADERS, 1 + 2 * h->asked, fields.at, fields.n);
    h->asked++;
    h->running++;
  }
  if (h->leaving)
    for (int k = h->asked; k < c->wanted; k++) stream_ended(stream_of(c, k), "the server takes no more streams");
}

static void http2_stream_ended(Connection *c, Stream *s, const char *error) {
  if (s->progress == ENDED) return;
  ((Http2 *)c->protocol)->running--;
  stream_ended(s, error);
  http2_ask(c);
}

// 0x88 is all that is asked of a block: `:status: 200`, which stands first, behind changes of the table's size.
static bool http2_is_ok(const unsigned char *p, size_t n) {
  const unsigned char *end = p + n;
  while (p < end && (*p & 0xe0) == 0x20) {
    bool goes_on = (*p++ & 0x1f) == 0x1f;
    while (goes_on && p < end) goes_on = *p++ & 0x80;
  }
  return p < end && *p == 0x88;
}

// What is left of a payload without its padding and its priority; false where it can't be.
static bool http2_unpad(int type, int flags, const char **p, size_t *n) {
  size_t front = 0, back = 0;
  if (flags & PADDED && *n) {
    front = 1;
    back = (unsigned char)**p;
  }
  if (type == HEADERS && flags & PRIORITY) front += 5;
  if (front + back > *n) return false;
  *p += front;
  *n -= front + back;
  return true;
}

static void http2_count(Connection *c, Stream *s, int id, size_t n) {
  Http2 *h = c->protocol;
  h->unacknowledged += (long long)n;
  if (h->unacknowledged > CONNECTION_WINDOW / 2) {
    http2_give_window(c, 0, h->unacknowledged);
    h->unacknowledged = 0;
  }
  s->unacknowledged += (long long)n;
  if (s->unacknowledged > STREAM_WINDOW / 2 && s->progress != ENDED) {
    http2_give_window(c, id, s->unacknowledged);
    s->unacknowledged = 0;
  }
}

static void http2_of_stream(Connection *c, int type, int flags, int id, const char *p, size_t n) {
  Http2 *h = c->protocol;
  int k = id / 2;
  if (!(id & 1) || k >= h->asked) {
    close_connection(c, "a frame is of a stream that nobody asked for");
    return;
  }
  Stream *s = stream_of(c, k);
  size_t whole = n;
  if (type == RST_STREAM) {
    char error[60];
    snprintf(error, sizeof error, "the server reset a stream with %d", n >= 4 ? (int)big_endian((const void *)p, 4) : -1);
    http2_stream_ended(c, s, error);
    return;
  }
  if (!http2_unpad(type, flags, &p, &n)) {
    close_connection(c, "a frame is padded with more than it holds");
    return;
  }
  if (type == HEADERS && !s->ok) s->ok = http2_is_ok((const unsigned char *)p, n);
  if (!s->ok) http2_stream_ended(c, s, "the server answered with a status that is not 200");
  if (type == DATA) {
    if (s->progress != ENDED) sse_read(s, p, n);
    http2_count(c, s, id, whole);
  }
  if (flags & END_STREAM) http2_stream_ended(c, s, NULL);
}

static void http2_settings(Connection *c, int flags, const unsigned char *p, size_t n) {
  Http2 *h = c->protocol;
  if (flags & ACK) return;
  for (; n >= 6; p += 6, n -= 6)
    if (big_endian(p, 2) == MAX_CONCURRENT_STREAMS) h->limit = (long long)big_endian(p + 2, 4);
  http2_frame(c, SETTINGS, ACK, 0, NULL, 0);
  h->greeted = true;
  http2_ask(c);
}

static void http2_goaway(Connection *c, const unsigned char *p, size_t n) {
  Http2 *h = c->protocol;
  char error[60];
  long long last = n >= 8 ? (long long)(big_endian(p, 4) & 0x7fffffff) : 0;
  snprintf(error, sizeof error, "the server said GOAWAY with %d", n >= 8 ? (int)big_endian(p + 4, 4) : -1);
  h->leaving = true;
  for (int k = 0; k < h->asked; k++)
    if (1 + 2 * k > last) http2_stream_ended(c, stream_of(c, k), error);
  http2_ask(c);
}

// How much of it was whole frames.
static size_t http2_frames(Connection *c, const char *p, size_t n) {
  size_t used = 0;
  while (c->state == OPEN && n - used >= 9) {
    const unsigned char *head = (const unsigned char *)p + used;
    size_t length = (size_t)big_endian(head, 3);
    if (n - used - 9 < length) break;
    int type = head[3], flags = head[4], id = (int)(big_endian(head + 5, 4) & 0x7fffffff);
    const char *payload = p + used + 9;
    if (type == DATA || type == HEADERS || type == RST_STREAM) http2_of_stream(c, type, flags, id, payload, length);
    else if (type == SETTINGS) http2_settings(c, flags, (const void *)payload, length);
    else if (type == PING_FRAME && !(flags & ACK)) http2_frame(c, PING_FRAME, ACK, 0, payload, length);
    else if (type == GOAWAY) http2_goaway(c, (const void *)payload, length);
    used += 9 + length;
  }
  return used;
}

static void http2_received(Connection *c, char *p, size_t n) {
  if (!c->in.n) { // the common case needs no copy
    size_t used = http2_frames(c, p, n);
    if (c->state == OPEN) bytes_add(&c->in, p + used, n - used);
    return;
  }
  bytes_add(&c->in, p, n);
  size_t used = http2_frames(c, c->in.at, c->in.n);
  if (c->state == OPEN) bytes_drop(&c->in, used);
}

static void http2_left(Connection *c) { (void)c; }

static const Protocol http2 = {"h2", http2_opened, http2_ask, http2_received, http2_left};
