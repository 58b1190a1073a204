/* How many bytes each rank reads and writes in one call of each kind. Arguments: world, bytes, slot bytes.
 *
 * Prints lines of `what rank read written`. Built with counted.h by test_bytes_moved.py.
 */
#define _GNU_SOURCE
#include "shm.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

size_t bytes_read, bytes_written;
const void *reduced;

static uint32_t world, rank;
static size_t bytes;
static shm_group *group;
static unsigned char *buffers, *own;

static int never(void *context) {
    (void)context;
    return 0;
}

static void count(const char *what, shm_collective *run, size_t numel, unsigned char *out) {
    shm_patience patience = {shm_deadline_in(INT64_C(60000000000)), never, NULL};
    shm_buffers all = {buffers, bytes};
    shm_call call = {.header = {.numel = numel, .dtype = SHM_I32, .reduce_op = SHM_SUM},
                     .buffers = &all,
                     .out = out,
                     .width = sizeof(int32_t)};
    bytes_read = bytes_written = 0;
    reduced = NULL;
    if (run(group, &call, &patience) != SHM_OK)
        _exit(3);
    printf("%s %u %zu %zu\n", what, rank, bytes_read, bytes_written);
    fflush(stdout);
}

int main(int words, char **said) {
    if (words != 4)
        return 2;
    world = (uint32_t)atoi(said[1]);
    bytes = strtoull(said[2], NULL, 10);
    size_t slot = strtoull(said[3], NULL, 10), numel = bytes / sizeof(int32_t);
    int memfd = memfd_create("bytes_moved", MFD_CLOEXEC), nobody[64];
    if (memfd < 0 || ftruncate(memfd, (off_t)shm_bytes(world, slot)) != 0 || world > 64)
        return 2;
    buffers = mmap(NULL, world * bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    own = calloc(world, bytes);
    for (uint32_t i = 0; i < 64; i++)
        nobody[i] = -1;
    for (uint32_t i = 1; i < world && rank == 0; i++)
        rank = fork() == 0 ? i : 0;
    group = shm_open_group(memfd, rank, world, slot, nobody);
    if (group == NULL || buffers == MAP_FAILED || own == NULL)
        return 2;
    count("all_reduce", shm_all_reduce, numel, own);
    count("one_shot_all_reduce", shm_one_shot_all_reduce, numel, own);
    count("two_shot_all_reduce", shm_two_shot_all_reduce, numel, own);
    count("all_gather", shm_symmetric_all_gather, numel, own);
    count("reduce_scatter", shm_symmetric_reduce_scatter, numel / world, own);
    int ended = 0, status = 0;
    while (rank == 0 && wait(&status) > 0)
        ended |= status;
    return ended != 0;
}
