/* The C core as it is, with the ranks of a group as threads of one process, so that ThreadSanitizer sees all of them.
 *
 * Every rank maps the segment at the same place: mmap is replaced for that (see ../core.py). Each thread runs the same
 * random program of collectives, messages and signals, drawn from the seed, and compares each result with what it
 * computes for itself.
 * Arguments: world, slot bytes, collectives, seed. Ends with 0 when everything was right.
 */
#define _GNU_SOURCE
#include "mail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MOST 6000 /* elements of one rank's part */

static void *segment;
static unsigned char *buffers;            /* one of each rank, which all of them see */
static shm_channel channels[64][64];      /* from, to */
static uint32_t world;
static size_t slot_bytes, collectives;
static uint64_t seed;
static int memfd;

void *one_mapping(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int keep_mapping(void *at, size_t bytes);

void *one_mapping(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    return fd == memfd ? segment : mmap(at, bytes, protection, flags, fd, offset);
}

int keep_mapping(void *at, size_t bytes) { return at == segment ? 0 : munmap(at, bytes); }

static int never(void *context) {
    (void)context;
    return 0;
}

static uint32_t draw(uint64_t *state, uint32_t below) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33) % below;
}

/* What rank `rank` has at place `i` in collective `turn`; small, so that sums are exact. */
static int32_t value(size_t turn, uint32_t rank, size_t i) { return (int32_t)((turn * 31 + rank * 7 + i * 13) % 1009); }

static int32_t total(size_t turn, size_t i) {
    int32_t sum = 0;
    for (uint32_t rank = 0; rank < world; rank++)
        sum += value(turn, rank, i);
    return sum;
}

static void expect(int right, const char *what, size_t turn, size_t i) {
    if (right)
        return;
    fprintf(stderr, "%s, collective %zu, element %zu: wrong\n", what, turn, i);
    exit(3);
}

typedef struct {
    shm_group *group;
    uint32_t rank;
    size_t turn, numel;
    int32_t *in, *out;
    shm_patience patience;
} player;

static shm_call call_of(const player *me, uint32_t op) {
    shm_call call = {.header = {.numel = me->numel, .dtype = SHM_I32, .op = op},
                     .in = (const unsigned char *)me->in,
                     .out = (unsigned char *)me->out,
                     .width = sizeof(int32_t)};
    return call;
}

static void must(shm_status status, const char *what) {
    if (status == SHM_OK)
        return;
    fprintf(stderr, "%s: status %d\n", what, (int)status);
    exit(4);
}

static void play_all_reduce(player *me) {
    shm_call call = call_of(me, 0);
    for (size_t i = 0; i < me->numel; i++)
        me->out[i] = value(me->turn, me->rank, i);
    must(shm_all_reduce(me->group, &call, &me->patience), "all_reduce");
    for (size_t i = 0; i < me->numel; i++)
        expect(me->out[i] == total(me->turn, i), "all_reduce", me->turn, i);
}

static void play_broadcast(player *me, uint32_t root) {
    shm_call call = call_of(me, 1);
    call.header.detail = root;
    for (size_t i = 0; i < me->numel; i++)
        me->out[i] = value(me->turn, me->rank, i);
    must(shm_broadcast(me->group, &call, &me->patience), "broadcast");
    for (size_t i = 0; i < me->numel; i++)
        expect(me->out[i] == value(me->turn, root, i), "broadcast", me->turn, i);
}

static void play_all_gather(player *me) {
    shm_call call = call_of(me, 2);
    for (size_t i = 0; i < me->numel; i++)
        me->in[i] = value(me->turn, me->rank, i);
    must(shm_all_gather(me->group, &call, &me->patience), "all_gather");
    for (size_t i = 0; i < me->numel * world; i++)
        expect(me->out[i] == value(me->turn, (uint32_t)(i / me->numel), i % me->numel), "all_gather", me->turn, i);
}

static void play_reduce_scatter(player *me) {
    shm_call call = call_of(me, 3);
    for (size_t i = 0; i < me->numel * world; i++)
        me->in[i] = value(me->turn, me->rank, i);
    must(shm_reduce_scatter(me->group, &call, &me->patience), "reduce_scatter");
    for (size_t i = 0; i < me->numel; i++)
        expect(me->out[i] == total(me->turn, me->rank * me->numel + i), "reduce_scatter", me->turn, i);
}

/* Rank r sends numel / (1 + (r + s) % 3) elements to rank s, which is what s sends to r. */
static void play_all_to_all(player *me) {
    uint64_t splits[128];
    size_t at = 0;
    shm_call call = call_of(me, 4);
    call.header.numel = 0;
    call.splits = splits;
    for (uint32_t peer = 0; peer < world; peer++) {
        splits[peer] = splits[world + peer] = me->numel / (1 + (me->rank + peer) % 3);
        for (size_t i = 0; i < splits[peer]; i++)
            me->in[at++] = value(me->turn, me->rank * 16 + peer, i);
    }
    must(shm_all_to_all(me->group, &call, &me->patience), "all_to_all");
    at = 0;
    for (uint32_t peer = 0; peer < world; peer++)
        for (size_t i = 0; i < splits[peer]; i++, at++)
            expect(me->out[at] == value(me->turn, peer * 16 + me->rank, i), "all_to_all", me->turn, at);
}

/* All ranks but the last say one thing, the last another: all of them must see it, and the group goes on. */
static void play_mismatch(player *me) {
    shm_call call = call_of(me, me->rank + 1 == world ? 6 : 5);
    if (world > 1 && shm_all_gather(me->group, &call, &me->patience) != SHM_MISMATCH)
        expect(0, "mismatch", me->turn, 0);
}

static size_t stride(void) { return sizeof(int32_t) * MOST * world; }

static int32_t *buffer_of(uint32_t rank) { return (int32_t *)(void *)(buffers + rank * stride()); }

static uint32_t next_to(const player *me, uint32_t steps) { return (me->rank + steps) % world; }

/* In a buffer that every rank has mapped: at the end each rank has the sums in its own. */
static void play_symmetric(player *me) {
    shm_buffers all = {.first = buffers, .stride = stride()};
    shm_call call = call_of(me, 7);
    call.buffers = &all;
    int32_t *mine = buffer_of(me->rank);
    for (size_t i = 0; i < me->numel; i++)
        mine[i] = value(me->turn, me->rank, i);
    must(shm_one_shot_all_reduce(me->group, &call, &me->patience), "one_shot_all_reduce");
    for (size_t i = 0; i < me->numel; i++)
        expect(me->out[i] == total(me->turn, i), "one_shot_all_reduce", me->turn, i);
    call.header.op = 8;
    must(shm_two_shot_all_reduce(me->group, &call, &me->patience), "two_shot_all_reduce");
    for (size_t i = 0; i < me->numel; i++)
        expect(mine[i] == total(me->turn, i), "two_shot_all_reduce", me->turn, i);
}

static void tell(player *me, uint32_t to) { must(shm_signal(me->group, &channels[me->rank][to]), "signal"); }

static void hear(player *me, uint32_t from) {
    must(shm_take_signal(me->group, from, &channels[from][me->rank], &me->patience), "take_signal");
}

/* Each rank writes into the buffer of the next one, when that has said that it has done with it, and tells it so. */
static void play_signal(player *me) {
    uint32_t to = next_to(me, 1), from = next_to(me, world - 1);
    int32_t *theirs = buffer_of(to), *mine = buffer_of(me->rank);
    tell(me, from);
    hear(me, to);
    for (size_t i = 0; i < me->numel; i++)
        theirs[i] = value(me->turn, me->rank, i);
    tell(me, to);
    hear(me, from);
    for (size_t i = 0; i < me->numel; i++)
        expect(mine[i] == value(me->turn, from, i), "signal", me->turn, i);
}

static shm_errand *posted(player *me, int receives, uint32_t peer, int32_t *data) {
    shm_errand *errand = shm_errand_new(me->group->mail, receives, (int)peer);
    if (errand == NULL)
        exit(5);
    errand->data = (unsigned char *)data;
    errand->envelope = (shm_envelope){.bytes = me->numel * sizeof *data, .numel = me->numel, .dtype = SHM_I32};
    if (shm_post(me->group->mail, errand) != 0)
        exit(5);
    return errand;
}

/* To the next rank and from the one before, two at a time. */
static void play_message(player *me) {
    uint32_t to = next_to(me, 1), from = next_to(me, world - 1);
    int32_t *second = me->in + MOST;
    if (world == 1)
        return;
    for (size_t i = 0; i < me->numel; i++) {
        me->in[i] = value(me->turn, me->rank, i);
        second[i] = value(me->turn, me->rank, i + 1);
    }
    shm_errand *errands[] = {posted(me, 0, to, me->in), posted(me, 0, to, second), posted(me, 1, from, me->out),
                             posted(me, 1, from, me->out + MOST)};
    for (size_t i = 0; i < 4; i++) {
        must(shm_await(me->group->mail, errands[i], &me->patience), "message");
        shm_drop(&errands[i]->request);
    }
    for (size_t i = 0; i < me->numel; i++) {
        expect(me->out[i] == value(me->turn, from, i), "message", me->turn, i);
        expect(me->out[MOST + i] == value(me->turn, from, i + 1), "second message", me->turn, i);
    }
}

static void play(player *me, uint32_t what, uint32_t root) {
    switch (what) {
    case 0:
    case 1: play_all_reduce(me); break;
    case 2: play_broadcast(me, root); break;
    case 3: play_all_gather(me); break;
    case 4: play_reduce_scatter(me); break;
    case 5: play_all_to_all(me); break;
    case 6: play_symmetric(me); break;
    case 7: play_signal(me); break;
    case 8: play_message(me); break;
    default: play_mismatch(me);
    }
}

static void *life(void *argument) {
    player me = {.rank = (uint32_t)(uintptr_t)argument, .patience = {.interrupted = never}};
    int nobody[64];
    memset(nobody, -1, sizeof nobody);
    me.group = shm_open_group(memfd, me.rank, world, slot_bytes, nobody);
    me.in = calloc((size_t)MOST * world, sizeof *me.in);
    me.out = calloc((size_t)MOST * world, sizeof *me.out);
    if (me.group == NULL || me.in == NULL || me.out == NULL)
        exit(5);
    uint64_t state = seed;
    for (me.turn = 0; me.turn < collectives; me.turn++) {
        uint32_t what = draw(&state, 10), root = draw(&state, world);
        me.numel = 1 + draw(&state, draw(&state, 2) ? 24 : 1 + draw(&state, MOST)); /* about 20 fit on a card */
        me.patience.deadline_ns = shm_now_ns() + INT64_C(60000000000);
        play(&me, what, root);
    }
    free(me.in);
    free(me.out);
    shm_free_group(me.group);
    return NULL;
}

int main(int count, char **words) {
    if (count != 5)
        return 2;
    world = (uint32_t)atoi(words[1]);
    slot_bytes = strtoull(words[2], NULL, 10);
    collectives = strtoull(words[3], NULL, 10);
    seed = strtoull(words[4], NULL, 10);
    size_t bytes = shm_bytes(world, slot_bytes);
    memfd = memfd_create("ranks_as_threads", MFD_CLOEXEC);
    if (memfd < 0 || ftruncate(memfd, (off_t)bytes) != 0 || world > 64)
        return 2;
    segment = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    buffers = calloc(world, stride());
    if (buffers == NULL)
        return 2;
    pthread_t threads[64];
    for (uint32_t rank = 0; rank < world; rank++)
        if (pthread_create(&threads[rank], NULL, life, (void *)(uintptr_t)rank) != 0)
            return 2;
    for (uint32_t rank = 0; rank < world; rank++)
        pthread_join(threads[rank], NULL);
    return 0;
}
