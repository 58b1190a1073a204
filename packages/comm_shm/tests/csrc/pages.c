/* Pages of a mapping that reaches beyond the end of its file: those that are there can be taken, the others cannot. */
#define _GNU_SOURCE
#include "shm.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES 4

int main(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int fd = memfd_create("pages", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)(2 * page)) != 0)
        return 2;
    unsigned char *at = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return 2;
    int there = shm_take_pages(at, 2 * page), beyond = shm_take_pages(at, PAGES * page);
    printf("%d %d\n", there, beyond == EFAULT);
    return at[0] != 0 || at[2 * page - 1] != 0;
}
