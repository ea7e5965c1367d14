/* For LD_PRELOAD: changes the wall clock of a process, as an administrator or NTP may.
   SHIM_CLOCK: a file with a number of seconds, which are added to the time. A test may change the file at any moment.
   Clocks that count from the machine's start are not changed, because setting the time does not change them either. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int file = -1;

static void open_file(void) {
  const char *path = getenv("SHIM_CLOCK");
  if (path) file = open(path, O_RDONLY | O_CLOEXEC);
}

static long offset(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  static _Atomic long last;
  char text[32];
  pthread_once(&once, open_file);
  ssize_t length = file < 0 ? 0 : pread(file, text, sizeof text - 1, 0);
  if (length > 0) { /* else, the test is just writing the file */
    text[length] = 0;
    last = atol(text);
  }
  return last;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  const int result = REAL(clock_gettime)(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += offset();
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  const int result = REAL(gettimeofday)(now, zone);
  if (result == 0) now->tv_sec += offset();
  return result;
}

time_t time(time_t *result) {
  const time_t now = REAL(time)(NULL) + offset();
  if (result) *result = now;
  return now;
}
