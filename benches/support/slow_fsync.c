/* Loaded before libc with LD_PRELOAD: every fsync and fdatasync takes FSYNC_DELAY_US longer. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void delay(void) {
    const char *us = getenv("FSYNC_DELAY_US");
    if (us) usleep(atoi(us));
}

int fsync(int fd) { delay(); return syscall(SYS_fsync, fd); }
int fdatasync(int fd) { delay(); return syscall(SYS_fdatasync, fd); }
