/* Which slots each rank writes, and where in them. Arguments: collective, world, bytes, slot bytes, calls.
 *
 * Prints lines of `what step rank owner slot offset bytes`, where what is `put` or `result`, and the slot is that of the
 * owner. Built by test_changing_hands.py.
 */
#define _GNU_SOURCE
#include "shm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

void wrote(const void *to, size_t bytes, int for_others); /* see written.h */

static uint32_t world, rank;
static shm_group *group;

static int never(void *context) {
    (void)context;
    return 0;
}

void wrote(const void *to, size_t bytes, int for_others) {
    uint32_t step = for_others ? group->step : group->step + 1;
    for (uint32_t owner = 0; owner < world && bytes != 0; owner++)
        for (uint32_t slot = 0; slot < SHM_SLOTS; slot++) {
            size_t offset = (uintptr_t)to - (uintptr_t)shm_slot(group, owner, slot);
            if (offset < group->slot_bytes)
                printf("%s %u %u %u %u %zu %zu\n", for_others ? "result" : "put", step, rank, owner, slot, offset, bytes);
        }
}

static shm_collective *named(const char *name) {
    static const struct {
        const char *name;
        shm_collective *run;
    } all[] = {{"all_reduce", shm_all_reduce},
               {"all_gather", shm_all_gather},
               {"all_to_all", shm_all_to_all},
               {"broadcast", shm_broadcast},
               {"reduce_scatter", shm_reduce_scatter}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(name, all[i].name) == 0)
            return all[i].run;
    exit(2);
}

static void call(shm_collective *run, size_t bytes, const unsigned char *in, unsigned char *out) {
    shm_patience patience = {shm_deadline_in(INT64_C(60000000000)), never, NULL, NULL};
    uint64_t splits[2 * 64];
    shm_call one = {.header = {.numel = bytes / sizeof(int32_t), .dtype = SHM_I32, .reduce_op = SHM_SUM},
                    .in = in,
                    .out = out,
                    .width = sizeof(int32_t),
                    .splits = splits};
    for (uint32_t i = 0; i < 2 * world; i++)
        splits[i] = one.header.numel;
    if (run(group, &one, &patience) != SHM_OK)
        _exit(3);
}

int main(int words, char **said) {
    if (words != 6)
        return 2;
    shm_collective *run = named(said[1]);
    world = (uint32_t)atoi(said[2]);
    size_t bytes = strtoull(said[3], NULL, 10), slot = strtoull(said[4], NULL, 10);
    int memfd = memfd_create("slots_written", MFD_CLOEXEC), nobody[64];
    if (memfd < 0 || world > 64 || ftruncate(memfd, (off_t)shm_bytes(world, slot)) != 0)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 4096); /* a line of one rank does not get into one of another */
    for (uint32_t i = 0; i < 64; i++)
        nobody[i] = -1;
    for (uint32_t i = 1; i < world && rank == 0; i++)
        rank = fork() == 0 ? i : 0;
    unsigned char *in = calloc(world, bytes), *out = calloc(world, bytes);
    group = shm_open_group(memfd, rank, world, slot, nobody);
    if (group == NULL || in == NULL || out == NULL)
        return 2;
    for (int calls = atoi(said[5]); calls > 0; calls--)
        call(run, bytes, in, out);
    int ended = 0, status = 0;
    while (rank == 0 && wait(&status) > 0)
        ended |= status;
    return ended != 0;
}
