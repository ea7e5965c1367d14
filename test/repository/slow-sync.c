/* For LD_PRELOAD: counts the calls that flush to disk, and holds them back.
   SHIM_SYNCS: a file that grows by a byte with every flush.
   SHIM_HOLD: while this file exists, flushes wait; the first to wait makes <file>.reached.
   SHIM_DELAY: every flush takes up to so many microseconds longer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void touch(const char *path) {
  int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0 || write(file, "s", 1) != 1) abort();
  close(file);
}

static void before_sync(void) {
  const char *hold = getenv("SHIM_HOLD");
  const char *delay = getenv("SHIM_DELAY");
  if (hold && access(hold, F_OK) == 0) {
    char reached[4096];
    snprintf(reached, sizeof reached, "%s.reached", hold);
    touch(reached);
    while (access(hold, F_OK) == 0) usleep(500);
  }
  if (delay) usleep(rand() % (atoi(delay) + 1));
}

static void after_sync(void) {
  const char *syncs = getenv("SHIM_SYNCS");
  if (syncs) touch(syncs);
}

/* A log to a pipe is flushed as well. */
static int is_on_disk(int file) {
  struct stat opened;
  return fstat(file, &opened) == 0 && S_ISREG(opened.st_mode);
}

#define HELD(name, parameters, arguments, is_held)             \
  int name parameters {                                        \
    int(*real) parameters = dlsym(RTLD_NEXT, #name);           \
    if (!(is_held)) return real arguments;                     \
    before_sync();                                             \
    int result = real arguments;                               \
    after_sync();                                              \
    return result;                                             \
  }

HELD(fdatasync, (int file), (file), is_on_disk(file))
HELD(fsync, (int file), (file), is_on_disk(file))
HELD(msync, (void *start, size_t length, int flags), (start, length, flags), 1)
