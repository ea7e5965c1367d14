/* For LD_PRELOAD: while the file SHIM_OUTPUT_ERROR exists, writes to standard output fail with the error number in it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

ssize_t write(int file, const void *bytes, size_t length) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  const char *path = getenv("SHIM_OUTPUT_ERROR");
  FILE *source = file == STDOUT_FILENO && path ? fopen(path, "re") : NULL;
  if (!source) return real(file, bytes, length);
  int number = 0;
  int fields = fscanf(source, "%d", &number);
  fclose(source);
  if (fields != 1) abort();
  errno = number;
  return -1;
}
