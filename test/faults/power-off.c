/* power-off <directory>: ends the file system of a directory as a power cut would. What was not flushed is lost, and whatever
   is still open gets EIO. It can be mounted again once it is unmounted. Only root may do that, and only some file systems
   can (ext4, xfs, f2fs; xfstests test their recovery by it). */
#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <sys/ioctl.h>

/* EXT4_IOC_SHUTDOWN and EXT4_GOING_FLAGS_NOLOGFLUSH of linux/fs/ext4/ext4.h. */
#define SHUTDOWN _IOR('X', 125, __u32)
#define WITHOUT_FLUSH 2

int main(int count, char **arguments) {
  const __u32 flags = WITHOUT_FLUSH;
  const int directory = count == 2 ? open(arguments[1], O_RDONLY | O_DIRECTORY) : -1;
  if (directory >= 0 && ioctl(directory, SHUTDOWN, &flags) == 0) return 0;
  perror("power-off");
  return 1;
}
