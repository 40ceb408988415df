// Bytes that grow. Memory that cannot be had ends the program: what it measured would be of no use.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  char *at;
  size_t n, room;
} Bytes;

static void *must(void *memory) {
  if (memory) return memory;
  fprintf(stderr, "loadgen: out of memory\n");
  exit(2);
}

// A zero always follows the last byte, so that a number at the end can be read.
static void bytes_add(Bytes *b, const void *data, size_t n) {
  if (b->n + n + 1 > b->room) {
    b->room = (b->n + n + 1) * 2;
    b->at = must(realloc(b->at, b->room));
  }
  if (n) memcpy(b->at + b->n, data, n);
  b->n += n;
  b->at[b->n] = 0;
}

static void bytes_add_byte(Bytes *b, unsigned value) {
  char byte = (char)value;
  bytes_add(b, &byte, 1);
}

static void bytes_drop(Bytes *b, size_t n) {
  if (!n) return;
  b->n -= n;
  memmove(b->at, b->at + n, b->n);
}

static void bytes_free(Bytes *b) {
  free(b->at);
  *b = (Bytes){0};
}

static unsigned long long big_endian(const unsigned char *p, int n) {
  unsigned long long value = 0;
  while (n--) value = value << 8 | *p++;
  return value;
}
