/* A library for LD_PRELOAD that makes each flush of a file to the disk take 5 ms longer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

int fdatasync(int file) {
  int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
  usleep(5000);
  return real(file);
}
