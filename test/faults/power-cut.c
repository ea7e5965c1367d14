/* For LD_PRELOAD: keeps a second file, the platter, with the bytes that a power cut would leave of a file.

   SHIM_FILE is the file, SHIM_FILE_BEFORE its name before it is renamed, SHIM_PLATTER the platter. The platter gets only
   the writes that the disk has promised to keep. A test that kills the process and then puts the platter in the file's
   place has made a power cut.

   A write is on the platter
   - when an fdatasync() or fsync() that began after the write's end has returned 0, or
   - when the write itself went through a descriptor opened with O_DSYNC or O_SYNC and has returned.
   The platter gets the write after the real call and before the caller goes on, so it is never ahead of the disk.

   SHIM_SEED: random sectors of other writes reach the platter as well, in any order, as on a disk that writes whenever it
   likes. These writes still count as not flushed.

   SHIM_CUT is a number n: the n-th flush, or O_DSYNC write, ends the process before it changes the platter.

   Calls that this file does not follow (writable maps, other calls that write) end the process, because their bytes
   would be missing on the platter. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR 512
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* A write that is not flushed yet. */
struct pending {
  struct pending *next;
  unsigned long number;
  off_t at;
  size_t length;
  char bytes[];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* for all below */
static struct pending *oldest, **end = &oldest;
static unsigned long writes;
static int platter = -1;
static unsigned seed;
static int steps;

static void stop(const char *why) {
  fprintf(stderr, "power-cut.c: %s\n", why);
  abort();
}

static int is_at(const struct stat *opened, const char *path) {
  struct stat named;
  return path && stat(path, &named) == 0 && opened->st_ino == named.st_ino &&
         opened->st_dev == named.st_dev;
}

/* Tells the file by its inode, because descriptors are reused and duplicated. */
static int is_followed(int file) {
  struct stat opened;
  return fstat(file, &opened) == 0 && S_ISREG(opened.st_mode) &&
         (is_at(&opened, getenv("SHIM_FILE")) || is_at(&opened, getenv("SHIM_FILE_BEFORE")));
}

static void put(const char *bytes, size_t length, off_t at) {
  if (platter < 0) platter = open(getenv("SHIM_PLATTER"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (REAL(pwrite)(platter, bytes, length, at) != (ssize_t)length) stop("can't write the platter");
}

static void step(void) {
  const char *cut = getenv("SHIM_CUT");
  if (++steps == (cut ? atoi(cut) : -1)) kill(getpid(), SIGKILL);
}

/* Puts all, none or some of a write's sectors on the platter. */
static void arrive_early(const struct pending *write) {
  const int quarters = rand_r(&seed) % 5; /* about this many quarters of its sectors */
  const off_t last = write->at + write->length;
  for (off_t at = write->at, next; at < last; at = next) {
    next = (at / SECTOR + 1) * SECTOR;
    if (next > last) next = last;
    if (rand_r(&seed) % 4 < quarters) put(write->bytes + (at - write->at), next - at, at);
  }
}

/* Copies a newer write over pending ones, because a flush of these writes the newest bytes of the file. */
static void cover(const struct pending *newer) {
  for (struct pending *old = oldest; old; old = old->next) {
    off_t from = old->at > newer->at ? old->at : newer->at;
    off_t old_end = old->at + old->length, new_end = newer->at + newer->length;
    off_t to = old_end < new_end ? old_end : new_end;
    if (from < to) memcpy(old->bytes + (from - old->at), newer->bytes + (from - newer->at), to - from);
  }
}

static void note(int file, off_t at, const struct iovec *parts, int count, size_t length) {
  struct pending *write = malloc(sizeof *write + length);
  if (!write) stop("no memory");
  *write = (struct pending){.number = ++writes, .at = at, .length = length};
  size_t noted = 0;
  for (int i = 0; i < count && noted < length; i++) {
    size_t part = parts[i].iov_len < length - noted ? parts[i].iov_len : length - noted;
    memcpy(write->bytes + noted, parts[i].iov_base, part);
    noted += part;
  }
  const int flags = fcntl(file, F_GETFL);
  if (flags & O_APPEND) stop("the file is appended to");
  if (flags & O_DSYNC) { /* O_SYNC contains the bit of O_DSYNC */
    step();
    put(write->bytes, length, at);
    cover(write);
    free(write);
    return;
  }
  if (getenv("SHIM_SEED")) {
    if (!seed) seed = atoi(getenv("SHIM_SEED")) | 1;
    arrive_early(write);
  }
  *end = write;
  end = &write->next;
}

/* Writes under the lock, so that writes are noted in the order in which they reach the file. */
#define WRITE(file, at, parts, count, call)                                     \
  if (!is_followed(file)) return call;                                          \
  pthread_mutex_lock(&mutex);                                                   \
  const off_t position = at;                                                    \
  const ssize_t written = call;                                                 \
  if (written > 0) note(file, position, parts, count, written);                 \
  pthread_mutex_unlock(&mutex);                                                 \
  return written

ssize_t write(int file, const void *bytes, size_t length) {
  const struct iovec all = {(void *)bytes, length};
  WRITE(file, lseek(file, 0, SEEK_CUR), &all, 1, REAL(write)(file, bytes, length));
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  WRITE(file, lseek(file, 0, SEEK_CUR), parts, count, REAL(writev)(file, parts, count));
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) {
  const struct iovec all = {(void *)bytes, length};
  WRITE(file, at, &all, 1, REAL(pwrite)(file, bytes, length, at));
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off_t at) {
  return pwrite(file, bytes, length, at);
}

static int flush(int file, int (*real)(int)) {
  if (!is_followed(file)) return real(file);
  pthread_mutex_lock(&mutex);
  const unsigned long before = writes;
  step();
  pthread_mutex_unlock(&mutex);
  const int result = real(file);
  pthread_mutex_lock(&mutex);
  while (oldest && oldest->number <= before) {
    struct pending *write = oldest;
    /* After a failed flush, its writes are dropped: a later flush may succeed without them. */
    if (result == 0) put(write->bytes, write->length, write->at);
    if (!(oldest = write->next)) end = &oldest;
    free(write);
  }
  pthread_mutex_unlock(&mutex);
  return result;
}

int fdatasync(int file) { return flush(file, REAL(fdatasync)); }
int fsync(int file) { return flush(file, REAL(fsync)); }

#define NOT_FOLLOWED(result, name, parameters, file, arguments)         \
  result name parameters {                                              \
    if (is_followed(file)) stop(#name "() of the file is not followed"); \
    return REAL(name) arguments;                                        \
  }

NOT_FOLLOWED(int, ftruncate, (int file, off_t length), file, (file, length))
NOT_FOLLOWED(int, ftruncate64, (int file, off_t length), file, (file, length))
NOT_FOLLOWED(int, fallocate, (int file, int mode, off_t at, off_t length), file, (file, mode, at, length))
NOT_FOLLOWED(ssize_t, pwritev, (int file, const struct iovec *parts, int count, off_t at), file,
             (file, parts, count, at))
NOT_FOLLOWED(ssize_t, pwritev64, (int file, const struct iovec *parts, int count, off_t at), file,
             (file, parts, count, at))

#define MMAP(name)                                                                               \
  void *name(void *start, size_t length, int protection, int flags, int file, off_t at) {        \
    if ((protection & PROT_WRITE) && (flags & MAP_SHARED) && file >= 0 && is_followed(file))     \
      stop("a writable map of the file is not followed");                                        \
    return REAL(mmap)(start, length, protection, flags, file, at);                               \
  }

MMAP(mmap)
MMAP(mmap64)
