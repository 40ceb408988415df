// WebSocket (RFC 6455): one connection a stream. A text message starts it; {"streaming": true, ...} is an event,
// {"streaming": false} the end, and anything else an error.
#pragma once

#include "connection.h"

typedef struct {
  bool stands;
  Bytes text; // of a message in several frames
} WebSocket;

enum { CONTINUATION = 0, TEXT = 1, CLOSE = 8, PING = 9, FIN = 0x80, MASKED = 0x80 };

// The nonce of section 1.3 and the answer to it: a server that gives it has read the key. Being guessed matters to
// caches between, of which there are none.
#define NONCE "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static void websocket_opened(Connection *c) {
  char line[sizeof path + sizeof host + 256];
  int n = snprintf(line, sizeof line,
                   "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Key: " NONCE "\r\nSec-WebSocket-Version: 13\r\n", path, host, port);
  bytes_add(&c->out, line, (size_t)n);
  bytes_add(&c->out, extra_headers.at, extra_headers.n);
  bytes_add(&c->out, "\r\n", 2);
  c->protocol = must(calloc(1, sizeof(WebSocket)));
}

// Clients mask what they send (section 5.3); with any key, since nobody is to be protected here.
static void websocket_send(Connection *c, unsigned opcode, const char *data, size_t n) {
  static const unsigned char key[4] = {0x37, 0xfa, 0x21, 0x3d};
  bytes_add_byte(&c->out, FIN | opcode);
  if (n < 126) {
    bytes_add_byte(&c->out, MASKED | (unsigned)n);
  } else {
    bytes_add_byte(&c->out, MASKED | 126);
    bytes_add_byte(&c->out, (unsigned)(n >> 8));
    bytes_add_byte(&c->out, (unsigned)n);
  }
  bytes_add(&c->out, key, 4);
  for (size_t i = 0; i < n; i++) bytes_add_byte(&c->out, (unsigned char)data[i] ^ key[i & 3]);
}

// The field "id" stands at an event's end, as a string.
static void websocket_id(Stream *s, const char *p, size_t n) {
  size_t end = n < 64 ? n : 64;
  const char *tail = p + n - end, *found = NULL;
  for (const char *next; (next = memmem(tail, (size_t)(p + n - tail), "\"id\":", 5)); tail = found = next + 5) {}
  if (!found) return;
  while (found < p + n && (*found == ' ' || *found == '"')) found++;
  event_id(s, strtoll(found, NULL, 10));
}

static void websocket_message(Connection *c, const char *p, size_t n) {
  Stream *s = stream_of(c, 0);
  size_t front = n < 64 ? n : 64;
  const char *found = memmem(p, front, "\"streaming\":", 12);
  const char *value = found ? found + 12 + (found[12] == ' ') : "";
  if (!strncmp(value, "true", 4)) {
    event_times(s, value, n - (size_t)(value - p));
    websocket_id(s, p, n);
    event_came(s);
  } else if (!strncmp(value, "false", 5)) {
    stream_ended(s, NULL);
    websocket_send(c, CLOSE, "\x03\xe8", 2); // 1000
    flush(c);
    close_connection(c, NULL);
  } else {
    close_connection(c, "a message is neither an event nor the end of the stream");
  }
}

static void websocket_frame(Connection *c, unsigned first, const char *p, size_t n) {
  WebSocket *w = c->protocol;
  unsigned opcode = first & 15;
  if (opcode == TEXT && first & FIN) {
    websocket_message(c, p, n);
  } else if (opcode == TEXT || opcode == CONTINUATION) {
    bytes_add(&w->text, p, n);
    if (!(first & FIN)) return;
    websocket_message(c, w->text.at, w->text.n);
    w->text.n = 0;
  } else if (opcode == PING) {
    websocket_send(c, 10, p, n);
  } else if (opcode == CLOSE) {
    char error[64];
    int code = n >= 2 ? (int)big_endian((const unsigned char *)p, 2) : 1005;
    snprintf(error, sizeof error, "the server closed the WebSocket with %d", code);
    close_connection(c, error);
  }
}

// How much of it was whole frames.
static size_t websocket_frames(Connection *c, const char *p, size_t n) {
  size_t used = 0;
  while (c->state == OPEN && n - used >= 2) {
    const unsigned char *head = (const unsigned char *)p + used;
    size_t wide = head[1] == 126 ? 2 : head[1] == 127 ? 8 : 0, rest = n - used - 2;
    if (rest < wide) break;
    unsigned long long length = wide ? big_endian(head + 2, (int)wide) : head[1];
    if (rest - wide < length) break;
    websocket_frame(c, head[0], p + used + 2 + wide, (size_t)length);
    used += 2 + wide + (size_t)length;
  }
  return used;
}

static bool websocket_stands(Connection *c) {
  char *end = memmem(c->in.at, c->in.n, "\r\n\r\n", 4);
  if (!end) return false;
  if (strncmp(c->in.at, "HTTP/1.1 101", 12) || !memmem(c->in.at, (size_t)(end - c->in.at), ACCEPT, sizeof ACCEPT - 1)) {
    close_connection(c, "the server did not accept the WebSocket");
    return false;
  }
  bytes_drop(&c->in, (size_t)(end - c->in.at) + 4);
  websocket_send(c, TEXT, message, strlen(message));
  return ((WebSocket *)c->protocol)->stands = true;
}

static void websocket_received(Connection *c, char *p, size_t n) {
  WebSocket *w = c->protocol;
  if (w->stands && !c->in.n) { // the common case needs no copy
    size_t used = websocket_frames(c, p, n);
    if (c->state == OPEN) bytes_add(&c->in, p + used, n - used);
    return;
  }
  bytes_add(&c->in, p, n);
  if (!w->stands && !websocket_stands(c)) return;
  size_t used = websocket_frames(c, c->in.at, c->in.n);
  if (c->state == OPEN) bytes_drop(&c->in, used);
}

static void websocket_left(Connection *c) { (void)c; }

static const Protocol websocket = {"ws", websocket_opened, NULL, websocket_received, websocket_left};
