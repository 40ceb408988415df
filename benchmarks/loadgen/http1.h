// HTTP/1.1: one stream a connection. Its body is chunked, has a length, or ends with the connection.
#pragma once

#include "connection.h"
#include "sse.h"

typedef enum { CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_END, TRAILER } ChunkPart;

typedef struct {
  bool in_body, chunked;
  long long left; // of the body, or of the chunk; -1 where the connection's end is the body's
  ChunkPart part;
} Http1;

static void http1_opened(Connection *c) {
  char line[sizeof path + sizeof host + 64];
  int n = snprintf(line, sizeof line, "GET %s HTTP/1.1\r\nHost: %s:%d\r\n", path, host, port);
  bytes_add(&c->out, line, (size_t)n);
  static const char accept[] = "Accept: text/event-stream\r\n";
  bytes_add(&c->out, accept, sizeof accept - 1);
  bytes_add(&c->out, extra_headers.at, extra_headers.n);
  bytes_add(&c->out, "\r\n", 2);
  c->protocol = must(calloc(1, sizeof(Http1)));
}

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if ((c | 32) >= 'a' && (c | 32) <= 'f') return (c | 32) - 'a' + 10;
  return -1;
}

// Whether the last chunk and its trailer's first line have come.
static bool http1_chunks(Http1 *h, Stream *s, const char *p, size_t n) {
  while (n > 0) {
    if (h->part == CHUNK_DATA) {
      size_t k = n < (size_t)h->left ? n : (size_t)h->left;
      sse_read(s, p, k);
      p += k;
      n -= k;
      h->left -= (long long)k;
      if (!h->left) h->part = CHUNK_END;
      continue;
    }
    char byte = *p++;
    n--;
    if (byte == '\n') {
      if (h->part == TRAILER) return true;
      h->part = h->part == CHUNK_END ? CHUNK_SIZE : h->left ? CHUNK_DATA : TRAILER;
    } else if (h->part == CHUNK_SIZE) {
      if (byte == ';') h->part = CHUNK_EXTENSION;
      else if (hex(byte) >= 0) h->left = h->left * 16 + hex(byte);
    }
  }
  return false;
}

// Whether the head has come whole; `rest` is then what came after it.
static bool http1_head(Connection *c, Bytes *rest) {
  char *end = memmem(c->in.at, c->in.n, "\r\n\r\n", 4);
  if (!end) return false;
  Http1 *h = c->protocol;
  size_t used = (size_t)(end - c->in.at) + 4;
  bytes_add(rest, c->in.at + used, c->in.n - used);
  end[2] = 0;
  int status = c->in.n > 12 ? atoi(c->in.at + 9) : 0;
  if (status != 200) {
    char error[40];
    snprintf(error, sizeof error, "the server answered with status %d", status);
    close_connection(c, error);
    return false;
  }
  const char *length = strcasestr(c->in.at, "\r\ncontent-length:");
  h->chunked = strcasestr(c->in.at, "\r\ntransfer-encoding: chunked") != NULL;
  h->left = h->chunked ? 0 : length ? atoll(length + 17) : -1;
  h->in_body = true;
  bytes_free(&c->in);
  return true;
}

static void http1_body(Connection *c, const char *p, size_t n) {
  Http1 *h = c->protocol;
  Stream *s = stream_of(c, 0);
  bool whole = false;
  if (h->chunked) {
    whole = http1_chunks(h, s, p, n);
  } else {
    sse_read(s, p, n);
    if (h->left >= 0) whole = (h->left -= (long long)n) <= 0;
  }
  if (!whole) return;
  stream_ended(s, NULL);
  close_connection(c, NULL);
}

static void http1_received(Connection *c, char *p, size_t n) {
  Http1 *h = c->protocol;
  if (h->in_body) {
    http1_body(c, p, n);
    return;
  }
  bytes_add(&c->in, p, n);
  Bytes rest = {0};
  if (http1_head(c, &rest)) http1_body(c, rest.at, rest.n);
  bytes_free(&rest);
}

static void http1_left(Connection *c) {
  Http1 *h = c->protocol;
  if (h->in_body && !h->chunked && h->left < 0) stream_ended(stream_of(c, 0), NULL);
}

static const Protocol http1 = {"sse", http1_opened, NULL, http1_received, http1_left};
