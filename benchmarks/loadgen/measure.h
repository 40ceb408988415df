// What is measured: the streams, their events, samples of time, and the report of all of them. Knows no protocol.
//
// An event counts when its last byte has come; the clock is read once for all that one recv() brought.
#pragma once

#include <stdbool.h>
#include <sys/resource.h>
#include <time.h>

#include "bytes.h"

typedef struct {
  float *values;
  size_t n, room;
} Samples; // in ms

typedef enum { NOT_STARTED, STARTED, ENDED } Progress;

typedef struct {
  Progress progress;
  long long events, last_id;
  bool disorder;      // an id was not the last one and 1
  double started, first;
  Bytes line;         // of an event stream: a line that has not come whole
  bool has_data;      // and the event that is being read: it has data,
  double sent, due;   // which says when it was sent and when it was to be sent (Unix ms; 0: it does not)
  bool ok;            // of HTTP/2: its status was 200
  long long unacknowledged; // and how much of its window has not been given back
} Stream;

static Stream *streams;
static int n_streams = 1;
static int n_ended, n_first;
static long long n_events, n_bytes, n_reads, n_errors;
static double began;
static char first_error[200];
static Samples latency, lateness, first_event;
static double now, now_unix_ms;

static double clock_seconds(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void look_at_the_clock(void) {
  now = clock_seconds(CLOCK_MONOTONIC);
  now_unix_ms = clock_seconds(CLOCK_REALTIME) * 1e3;
}

static void sample(Samples *s, double ms) {
  if (s->n == s->room) {
    s->room = s->room ? s->room * 2 : 4096;
    s->values = must(realloc(s->values, s->room * sizeof(float)));
  }
  s->values[s->n++] = (float)ms;
}

static int compare(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

// -1 without samples. They have to be sorted.
static double percentile(const Samples *s, double part) {
  return s->n ? (double)s->values[(size_t)(part * (double)(s->n - 1))] : -1;
}

static void stream_started(Stream *s) {
  s->progress = STARTED;
  s->last_id = -1;
  s->started = clock_seconds(CLOCK_MONOTONIC);
}

// `error` is NULL where all is well.
static void stream_ended(Stream *s, const char *error) {
  if (s->progress == ENDED) return;
  s->progress = ENDED;
  n_ended++;
  bytes_free(&s->line);
  if (!error) return;
  if (!n_errors++) snprintf(first_error, sizeof first_error, "%s", error);
}

static void event_id(Stream *s, long long id) {
  if (s->last_id >= 0 && id != s->last_id + 1) s->disorder = true;
  s->last_id = id;
}

static void event_came(Stream *s) {
  s->events++;
  n_events++;
  if (!s->first) {
    s->first = now;
    n_first++;
    sample(&first_event, (now - s->started) * 1e3);
  }
  if (s->sent > 0) sample(&latency, now_unix_ms - s->sent);
  if (s->due > 0) sample(&lateness, now_unix_ms - s->due);
  s->has_data = false;
  s->sent = s->due = 0;
}

// The times that an event's data bears: they stand at its front, a long text may follow.
static void event_times(Stream *s, const char *data, size_t n) {
  size_t front = n < 200 ? n : 200;
  const char *found = memmem(data, front, "\"ts\":", 5);
  if (found) s->sent = strtod(found + 5, NULL);
  found = memmem(data, front, "\"due\":", 6);
  if (found) s->due = strtod(found + 6, NULL);
}

// What came until now was the way to a steady state.
static void forget_the_past(void) {
  n_events = n_bytes = n_reads = 0;
  latency.n = lateness.n = 0;
  began = clock_seconds(CLOCK_MONOTONIC);
}

// One line of JSON; whether all that was expected of each stream has come, in order (`expected` < 0: any number).
static bool report(long long expected, int connections, bool endless) {
  double seconds = clock_seconds(CLOCK_MONOTONIC) - began;
  int bad = 0, disorder = 0, unfinished = 0;
  for (int i = 0; i < n_streams; i++) {
    disorder += streams[i].disorder;
    unfinished += streams[i].progress != ENDED;
    bad += expected >= 0 && streams[i].events != expected;
  }
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
  printf("{\"streams\":%d,\"connections\":%d,\"events\":%lld,\"bytes\":%lld,\"seconds\":%.4f,\"events_per_s\":%.1f",
         n_streams, connections, n_events, n_bytes, seconds, (double)n_events / (seconds > 0 ? seconds : 1));
  struct { const char *name; Samples *samples; } times[] = {
    {"lat", &latency}, {"due", &lateness}, {"ttfe", &first_event}};
  for (int i = 0; i < 3; i++) {
    Samples *s = times[i].samples;
    if (s->n) qsort(s->values, s->n, sizeof(float), compare);
    printf(",\"%s_ms_p50\":%.3f,\"%s_ms_p99\":%.3f,\"%s_ms_max\":%.3f", times[i].name, percentile(s, .5),
           times[i].name, percentile(s, .99), times[i].name, percentile(s, 1));
  }
  printf(",\"errors\":%lld,\"first_error\":\"%s\",\"unfinished\":%d,\"bad_streams\":%d,\"disorder\":%d,\"reads\":%lld,"
         "\"client_cpu_s\":%.3f}\n", n_errors, first_error, unfinished, bad, disorder, n_reads, cpu);
  fflush(stdout);
  return !n_errors && !bad && !disorder && (endless || !unfinished);
}
