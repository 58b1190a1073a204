/* The protocol of a collective: take turns, say what it is, compare, and only then touch data. */
#define _GNU_SOURCE
#include "shm.h"

#include <string.h>
#include <unistd.h>

static shm_status enter(shm_group *group) {
    if (group->owner != getpid())
        return SHM_FORKED;
    pthread_mutex_lock(&group->turn);
    shm_status status = SHM_OK;
    if (group->closed)
        status = SHM_CLOSED;
    else if (shm_broken(group) != 0)
        status = SHM_BROKEN;
    if (status != SHM_OK)
        pthread_mutex_unlock(&group->turn);
    return status;
}

static shm_status leave(shm_group *group, shm_status status) {
    if (status != SHM_OK && status != SHM_MISMATCH)
        shm_break(group, status);
    pthread_mutex_unlock(&group->turn);
    return status;
}

static shm_status exchange(shm_group *group, const shm_header *header, const shm_patience *patience) {
    uint32_t step = group->step;
    group->controls[group->rank].header[step & 1] = *header;
    shm_publish(group, step);
    return shm_wait_all(group, step, patience);
}

/* Every rank compares all headers, so every rank comes to the same answer. */
static shm_status compare(const shm_group *group, const shm_header *header) {
    for (uint32_t rank = 0; rank < group->world; rank++)
        if (memcmp(&group->controls[rank].header[group->step & 1], header, sizeof *header) != 0)
            return SHM_MISMATCH;
    return SHM_OK;
}

shm_status shm_agree(shm_group *group, shm_header header, const shm_patience *patience) {
    shm_status status = enter(group);
    if (status != SHM_OK)
        return status;
    header.serial = ++group->serial;
    group->step++;
    status = exchange(group, &header, patience);
    if (status == SHM_OK)
        status = compare(group, &header);
    return leave(group, status);
}

/* One chunk of at most a slot: copy in, exchange, and reduce straight into the caller's memory. */
static shm_status reduce_chunk(shm_group *group, float *data, size_t numel, const shm_header *header, int first,
                               const shm_patience *patience) {
    uint32_t step = ++group->step;
    if (numel != 0)
        memcpy(shm_slot(group, group->rank, step), data, numel * sizeof(float));
    shm_status status = exchange(group, header, patience);
    if (status == SHM_OK && first)
        status = compare(group, header);
    if (status != SHM_OK || numel == 0)
        return status;
    for (uint32_t rank = 0; rank < group->world; rank++)
        group->sources[rank] = shm_slot(group, rank, step);
    if (group->world == 2) /* one slot less to read */
        group->sources[group->rank] = data;
    shm_reduce_f32(data, group->sources, group->world, numel, (shm_reduce_op)header->reduce_op);
    return SHM_OK;
}

shm_status shm_all_reduce_f32(shm_group *group, float *data, shm_header header, const shm_patience *patience) {
    shm_status status = enter(group);
    if (status != SHM_OK)
        return status;
    header.serial = ++group->serial;
    size_t numel = (size_t)header.numel, most = group->slot_bytes / sizeof(float), done = 0;
    if (group->world > 1) {
        do {
            size_t part = numel - done < most ? numel - done : most;
            status = reduce_chunk(group, data + done, part, &header, done == 0, patience);
            done += part;
        } while (status == SHM_OK && done < numel);
    }
    return leave(group, status);
}
