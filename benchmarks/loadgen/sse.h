// text/event-stream, as far as events are counted: a block with a data line is one; comments are none.
#pragma once

#include "measure.h"

static void sse_line(Stream *s, const char *p, size_t n) {
  if (n && p[n - 1] == '\r') n--;
  if (n == 0) {
    if (s->has_data) event_came(s);
  } else if (n > 5 && !memcmp(p, "data:", 5)) {
    s->has_data = true;
    event_times(s, p + 5, n - 5);
  } else if (n > 3 && !memcmp(p, "id:", 3)) {
    event_id(s, strtoll(p + 3, NULL, 10));
  }
}

// A piece of the body, cut anywhere.
static void sse_read(Stream *s, const char *p, size_t n) {
  while (n > 0) {
    const char *end = memchr(p, '\n', n);
    if (!end) {
      bytes_add(&s->line, p, n);
      return;
    }
    size_t length = (size_t)(end - p);
    if (s->line.n) {
      bytes_add(&s->line, p, length);
      sse_line(s, s->line.at, s->line.n);
      s->line.n = 0;
    } else {
      sse_line(s, p, length);
    }
    p = end + 1;
    n -= length + 1;
  }
}
