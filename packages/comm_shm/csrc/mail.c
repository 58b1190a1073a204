/* Moving the bytes of messages through the lanes. Nothing here waits, and everything is called with the lock held. */
#define _GNU_SOURCE
#include "mail.h"

#include "futex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CACHE_LINE 64
#define PIECE_BYTES (32 * 1024) /* the other side is told after so many */

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static uint64_t padded(uint64_t bytes) { return (bytes + 63) & ~UINT64_C(63); }

/* Rings for all pairs take address space only; many ranks get shorter ones. */
static size_t ring_bytes_for(uint32_t world) {
    return world <= 16 ? 256 * 1024 : world <= 64 ? 64 * 1024 : 16 * 1024;
}

static size_t front_bytes(uint32_t world) {
    size_t bytes = world * sizeof(shm_bell) + (size_t)world * world * sizeof(shm_lane);
    return (bytes + 4095) / 4096 * 4096;
}

size_t shm_mail_bytes(uint32_t world) {
    return front_bytes(world) + (size_t)world * world * ring_bytes_for(world);
}

int shm_mail_init(shm_mail *mail, shm_group *group, void *at) {
    mail->group = group;
    mail->bells = at;
    mail->lanes = (shm_lane *)(void *)(mail->bells + group->world);
    mail->rings = (unsigned char *)at + front_bytes(group->world);
    mail->ring_bytes = ring_bytes_for(group->world);
    mail->asides_end = &mail->asides;
    mail->out = calloc(group->world, sizeof *mail->out);
    mail->in = calloc(group->world, sizeof *mail->in);
    if (mail->out == NULL || mail->in == NULL)
        return ENOMEM;
    return shm_hand_init(&mail->hand, shm_mail_due_in, shm_mail_work);
}

void shm_mail_free(shm_mail *mail) {
    while (mail->asides != NULL) {
        shm_aside *aside = mail->asides;
        mail->asides = aside->next;
        free(aside);
    }
    mail->asides_end = &mail->asides;
    free(mail->out);
    free(mail->in);
    mail->out = NULL;
    mail->in = NULL;
}

shm_lane *shm_lane_between(const shm_mail *mail, uint32_t from, uint32_t to) {
    return &mail->lanes[(size_t)from * mail->group->world + to];
}

static unsigned char *ring_between(const shm_mail *mail, uint32_t from, uint32_t to) {
    return mail->rings + ((size_t)from * mail->group->world + to) * mail->ring_bytes;
}

/* Either the sleeper sees what moved, or this rank sees the sleeper, see sleep_on_the_bell. */
void shm_ring_bell(shm_mail *mail, uint32_t rank) {
    shm_bell *bell = &mail->bells[rank];
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&bell->sleepers, memory_order_relaxed) != 0) {
        atomic_fetch_add(&bell->rings, 1);
        shm_futex_wake(&bell->rings);
    }
}

/* The errand is in no list any more. A thread that sleeps on this rank's own bell may be waiting for just this one. */
void shm_mail_settle(shm_mail *mail, shm_errand *errand, shm_status status) {
    mail->pending--;
    errand->request.next = NULL;
    shm_finish(&mail->hand, &errand->request, status);
    shm_ring_bell(mail, mail->group->rank);
}

static void destroy(shm_request *request) { free(request); }

shm_errand *shm_errand_new(shm_mail *mail, int receives, int peer) {
    shm_errand *errand = calloc(1, sizeof *errand);
    if (errand == NULL)
        return NULL;
    errand->request.references = 1;
    errand->request.destroy = destroy;
    errand->mail = mail;
    errand->receives = receives;
    errand->peer = errand->source = peer;
    return errand;
}

static shm_errand *after(const shm_errand *errand) { return (shm_errand *)(void *)errand->request.next; }

/* -- sending -------------------------------------------------------------------------------------------------------- */

static void to_ring(unsigned char *ring, size_t size, uint64_t at, const void *data, size_t bytes) {
    size_t place = at % size, part = least(bytes, size - place);
    memcpy(ring + place, data, part);
    memcpy(ring, (const unsigned char *)data + part, bytes - part);
}

/* Write into each line of what was read, and so take it from the sender. A core that writes lines which another one has
 * read since waits several times as long as for lines which another one has written: see slot_of in collective.c. */
static void take_over(unsigned char *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i += CACHE_LINE)
        *(volatile unsigned char *)(at + i) = 0;
}

static void from_ring(void *data, unsigned char *ring, size_t size, uint64_t at, size_t bytes) {
    size_t place = at % size, part = least(bytes, size - place);
    memcpy(data, ring + place, part);
    memcpy((unsigned char *)data + part, ring, bytes - part);
    take_over(ring + place, part);
    take_over(ring, bytes - part);
}

static shm_envelope *envelope_at(const shm_mail *mail, uint32_t from, uint32_t to, uint64_t place) {
    return (shm_envelope *)(void *)(ring_between(mail, from, to) + place % mail->ring_bytes);
}

/* An error here, rather than a fault at the first write. */
static int take_pages(shm_mail *mail, int peer) {
    shm_outgoing *out = &mail->out[peer];
    if (!out->ready) {
        void *ring = ring_between(mail, mail->group->rank, (uint32_t)peer);
        out->ready = shm_take_pages(ring, mail->ring_bytes) == 0;
    }
    return out->ready;
}

/* The envelope is read as soon as the receiver has judged it, because the room may be used again from then on. */
static int finish_taken(shm_mail *mail, int peer) {
    shm_outgoing *out = &mail->out[peer];
    shm_lane *lane = shm_lane_between(mail, mail->group->rank, (uint32_t)peer);
    out->tail = atomic_load_explicit(&lane->tail, memory_order_acquire);
    int moved = 0;
    while (out->first != NULL && out->first->begun && out->tail > out->first->start) {
        shm_errand *errand = out->first;
        if (!errand->judged)
            errand->envelope = *envelope_at(mail, mail->group->rank, (uint32_t)peer, errand->start);
        errand->judged = 1;
        if (errand == out->writing || out->tail < errand->end)
            break;
        out->first = after(errand);
        if (out->first == NULL)
            out->last = NULL;
        shm_mail_settle(mail, errand, errand->envelope.misfit ? SHM_MISFIT : SHM_OK);
        moved = 1;
    }
    return moved;
}

/* Write as much of one message as there is room for; whether anything was written. */
static int write_some(shm_mail *mail, shm_errand *errand, shm_lane *lane, shm_outgoing *out) {
    uint32_t me = mail->group->rank, peer = (uint32_t)errand->peer;
    unsigned char *ring = ring_between(mail, me, peer);
    uint64_t used = out->head - out->tail;
    size_t room = used < mail->ring_bytes ? mail->ring_bytes - (size_t)used : 0;
    int moved = 0;
    if (!errand->begun && room >= sizeof errand->envelope) {
        errand->begun = 1;
        errand->start = out->head;
        errand->envelope.serial = ++out->serial;
        *envelope_at(mail, me, peer, out->head) = errand->envelope;
        out->head += sizeof errand->envelope;
        room -= sizeof errand->envelope;
        moved = 1;
    }
    size_t part = errand->begun ? least(least(room, errand->envelope.bytes - errand->moved), PIECE_BYTES) : 0;
    if (part != 0) {
        to_ring(ring, mail->ring_bytes, out->head, errand->data + errand->moved, part);
        errand->moved += part;
        out->head += part;
        moved = 1;
    }
    if (errand->begun && errand->moved == errand->envelope.bytes) {
        out->head = errand->end = padded(out->head);
        out->writing = after(errand);
    }
    if (moved) {
        atomic_store_explicit(&lane->head, out->head, memory_order_release);
        shm_ring_bell(mail, peer);
    }
    return moved;
}

static int push(shm_mail *mail, int peer) {
    shm_outgoing *out = &mail->out[peer];
    shm_lane *lane = shm_lane_between(mail, mail->group->rank, (uint32_t)peer);
    int moved = finish_taken(mail, peer);
    while (out->writing != NULL) {
        shm_status status = atomic_load(&lane->cut) ? SHM_CUT : take_pages(mail, peer) ? SHM_OK : SHM_NO_ROOM;
        if (status != SHM_OK)
            shm_mail_give_up(mail, out->writing, status);
        else if (!write_some(mail, out->writing, lane, out))
            break;
        moved = 1;
        finish_taken(mail, peer);
    }
    return moved;
}

/* -- receiving ------------------------------------------------------------------------------------------------------ */

int shm_mail_readable(const shm_mail *mail, int peer) {
    const shm_lane *lane = shm_lane_between(mail, (uint32_t)peer, mail->group->rank);
    return atomic_load_explicit(&((shm_lane *)(uintptr_t)lane)->head, memory_order_acquire) != mail->in[peer].tail;
}

static int asks(const shm_errand *errand, int source) {
    return errand->peer == source || errand->peer == SHM_ANY_SOURCE;
}

static void unask(shm_mail *mail, shm_errand *errand) {
    shm_errand *before = NULL;
    for (shm_errand *one = mail->asked; one != NULL && one != errand; one = after(one))
        before = one;
    if (before == NULL)
        mail->asked = after(errand);
    else
        before->request.next = errand->request.next;
    if (mail->asked_last == errand)
        mail->asked_last = before;
    errand->request.next = NULL;
}

static int fits(const shm_errand *errand, const shm_envelope *envelope) {
    return errand->envelope.numel == envelope->numel && errand->envelope.dtype == envelope->dtype &&
           errand->envelope.bytes == envelope->bytes;
}

/* What came takes the place of what was asked for, which stays beside it. */
static void describe_arrival(shm_errand *errand, int source, const shm_envelope *envelope) {
    uint32_t dtype = errand->envelope.dtype;
    uint64_t numel = errand->envelope.numel;
    errand->envelope = *envelope;
    errand->envelope.wanted_dtype = dtype;
    errand->envelope.wanted_numel = numel;
    errand->source = source;
}

static shm_aside *put_aside(shm_mail *mail, int source, const shm_envelope *envelope) {
    shm_aside *aside = malloc(sizeof *aside + envelope->bytes);
    if (aside == NULL)
        return NULL;
    *aside = (shm_aside){.source = source, .envelope = *envelope};
    *mail->asides_end = aside;
    mail->asides_end = &aside->next;
    return aside;
}

/* What is at the front of the lane stays there; who wants something behind it cannot have it. */
static void refuse_for_want_of_room(shm_mail *mail, int source) {
    shm_errand *errand = mail->asked;
    while (errand != NULL && !asks(errand, source))
        errand = after(errand);
    if (errand != NULL)
        shm_mail_give_up(mail, errand, SHM_NO_ROOM);
}

/* Who gets the message at the front of the lane? 0 when nobody does, and it has to stay. */
static int choose(shm_mail *mail, int source, shm_incoming *in, shm_envelope *envelope) {
    shm_errand *errand = mail->asked;
    int others = mail->greedy;
    for (; errand != NULL && !(asks(errand, source) && errand->envelope.tag == envelope->tag); errand = after(errand))
        others |= asks(errand, source);
    if (errand != NULL) {
        int good = fits(errand, envelope);
        unask(mail, errand);
        envelope->misfit = !good;
        envelope->wanted_dtype = errand->envelope.dtype;
        envelope->wanted_numel = errand->envelope.numel;
        describe_arrival(errand, source, envelope);
        in->errand = good ? errand : NULL;
        in->target = good ? errand->data : NULL;
        if (!good)
            shm_mail_settle(mail, errand, SHM_MISFIT);
    } else {
        in->aside = others ? put_aside(mail, source, envelope) : NULL;
        if (in->aside == NULL) {
            if (others && !mail->greedy)
                refuse_for_want_of_room(mail, source);
            return 0;
        }
        in->target = in->aside->data;
    }
    in->left = envelope->bytes;
    in->busy = 1;
    mail->busy++;
    return 1;
}

static void forget_aside(shm_mail *mail, shm_aside *aside) {
    shm_aside **link = &mail->asides;
    while (*link != aside)
        link = &(*link)->next;
    *link = aside->next;
    if (mail->asides_end == &aside->next)
        mail->asides_end = link;
    free(aside);
}

/* The message is here as a whole, and its receive is in no list. */
static void hand_over(shm_mail *mail, shm_aside *aside, shm_errand *errand) {
    int good = fits(errand, &aside->envelope), source = aside->source;
    shm_lane *lane = shm_lane_between(mail, (uint32_t)source, mail->group->rank);
    describe_arrival(errand, source, &aside->envelope);
    if (good) {
        memcpy(errand->data, aside->data, aside->envelope.bytes);
    } else if (atomic_load(&lane->regretted) == 0) { /* its send has finished: the sender hears of it at its next */
        lane->regret = errand->envelope;
        atomic_store(&lane->regretted, 1);
        shm_ring_bell(mail, (uint32_t)source);
    }
    forget_aside(mail, aside);
    shm_mail_settle(mail, errand, good ? SHM_OK : SHM_MISFIT);
}

static void arrive(shm_mail *mail, shm_incoming *in) {
    shm_errand *errand = in->errand;
    shm_aside *aside = in->aside;
    in->tail = padded(in->tail);
    in->busy = 0;
    mail->busy--;
    in->errand = NULL;
    in->aside = NULL;
    if (errand != NULL)
        shm_mail_settle(mail, errand, SHM_OK);
    if (aside != NULL) {
        aside->whole = 1;
        if (aside->claimed != NULL)
            hand_over(mail, aside, aside->claimed);
    }
}

/* Take a piece of the message at hand, or begin with the next one; whether anything was taken. */
static int read_some(shm_mail *mail, int source, shm_incoming *in, shm_lane *lane) {
    uint64_t there = atomic_load_explicit(&lane->head, memory_order_acquire) - in->tail;
    unsigned char *ring = ring_between(mail, (uint32_t)source, mail->group->rank);
    int moved = 0;
    if (!in->busy) {
        if (there == 0 || !choose(mail, source, in, envelope_at(mail, (uint32_t)source, mail->group->rank, in->tail)))
            return 0;
        in->tail += sizeof(shm_envelope);
        there -= sizeof(shm_envelope);
        moved = 1;
    }
    size_t part = least(least(in->left, there), PIECE_BYTES);
    if (part != 0) {
        if (in->target != NULL) {
            from_ring(in->target, ring, mail->ring_bytes, in->tail, part);
            in->target += part;
        }
        in->tail += part;
        in->left -= part;
        moved = 1;
    }
    if (in->left == 0)
        arrive(mail, in);
    if (moved) {
        atomic_store_explicit(&lane->tail, in->tail, memory_order_release);
        shm_ring_bell(mail, (uint32_t)source);
    }
    return moved;
}

static int pull(shm_mail *mail, int source) {
    shm_incoming *in = &mail->in[source];
    shm_lane *lane = shm_lane_between(mail, (uint32_t)source, mail->group->rank);
    int moved = 0;
    while (read_some(mail, source, in, lane))
        moved = 1;
    return moved;
}

int shm_mail_move(shm_mail *mail) {
    int moved = 0;
    for (uint32_t peer = 0; peer < mail->group->world; peer++) {
        if (mail->out[peer].first != NULL)
            moved |= push(mail, (int)peer);
        if (mail->asked != NULL || mail->in[peer].busy || mail->greedy)
            moved |= pull(mail, (int)peer);
    }
    return moved;
}

/* -- errands -------------------------------------------------------------------------------------------------------- */

static void accept_send(shm_mail *mail, shm_errand *errand) {
    shm_outgoing *out = &mail->out[errand->peer];
    if (out->last != NULL)
        out->last->request.next = &errand->request;
    else
        out->first = errand;
    out->last = errand;
    if (out->writing == NULL)
        out->writing = errand;
}

static void accept_receive(shm_mail *mail, shm_errand *errand) {
    for (shm_aside *aside = mail->asides; aside != NULL; aside = aside->next)
        if (asks(errand, aside->source) && aside->envelope.tag == errand->envelope.tag && aside->claimed == NULL) {
            aside->claimed = errand;
            if (aside->whole)
                hand_over(mail, aside, errand);
            return;
        }
    if (mail->asked_last != NULL)
        mail->asked_last->request.next = &errand->request;
    else
        mail->asked = errand;
    mail->asked_last = errand;
}

void shm_mail_accept(shm_mail *mail, shm_errand *errand) {
    atomic_fetch_add(&errand->request.references, 1);
    mail->pending++;
    if (errand->receives)
        accept_receive(mail, errand);
    else
        accept_send(mail, errand);
}

static void drop_send(shm_mail *mail, shm_errand *errand, shm_outgoing *out) {
    shm_errand *before = NULL;
    for (shm_errand *one = out->first; one != errand; one = after(one))
        before = one;
    if (before == NULL)
        out->first = after(errand);
    else
        before->request.next = errand->request.next;
    if (out->last == errand)
        out->last = before;
    if (out->writing != errand)
        return;
    out->writing = after(errand);
    if (errand->begun) { /* the receiver cannot be given the rest */
        atomic_store(&shm_lane_between(mail, mail->group->rank, (uint32_t)errand->peer)->cut, 1);
        shm_ring_bell(mail, (uint32_t)errand->peer);
    }
}

/* End an errand that has not finished, so that the others go on. */
void shm_mail_give_up(shm_mail *mail, shm_errand *errand, shm_status status) {
    if (!errand->receives) {
        drop_send(mail, errand, &mail->out[errand->peer]);
    } else {
        int found = 0;
        for (uint32_t source = 0; source < mail->group->world; source++)
            if (mail->in[source].errand == errand) {
                mail->in[source].errand = NULL;
                mail->in[source].target = NULL;
                found = 1;
            }
        for (shm_aside *aside = mail->asides; aside != NULL; aside = aside->next)
            if (aside->claimed == errand) {
                aside->claimed = NULL;
                found = 1;
            }
        if (!found)
            unask(mail, errand);
    }
    shm_mail_settle(mail, errand, status);
}

static shm_errand *some_receive(shm_mail *mail) {
    if (mail->asked != NULL)
        return mail->asked;
    for (uint32_t source = 0; source < mail->group->world; source++)
        if (mail->in[source].errand != NULL)
            return mail->in[source].errand;
    for (shm_aside *aside = mail->asides; aside != NULL; aside = aside->next)
        if (aside->claimed != NULL)
            return aside->claimed;
    return NULL;
}

shm_errand *shm_mail_any_pending(shm_mail *mail) {
    for (uint32_t peer = 0; peer < mail->group->world; peer++)
        if (mail->out[peer].first != NULL)
            return mail->out[peer].first;
    return some_receive(mail);
}

/* Of receives that nothing has come for: those from just this peer, and when it died, those from any. */
static void fail_asked(shm_mail *mail, int peer, shm_status status) {
    shm_errand *errand = mail->asked;
    while (errand != NULL) {
        shm_errand *next = after(errand);
        if (errand->peer == peer || (errand->peer == SHM_ANY_SOURCE && status != SHM_LEFT && status != SHM_CUT)) {
            errand->source = peer;
            shm_mail_give_up(mail, errand, status);
        }
        errand = next;
    }
}

/* What the peer did before it went, it did: its messages have been taken from the ring by now. */
void shm_mail_fail_lost(shm_mail *mail, uint32_t peer, shm_status gone) {
    shm_incoming *in = &mail->in[peer];
    while (gone != SHM_OK && mail->out[peer].first != NULL)
        shm_mail_give_up(mail, mail->out[peer].first, gone);
    if (shm_mail_readable(mail, (int)peer))
        return;
    if (gone == SHM_OK && atomic_load(&shm_lane_between(mail, peer, mail->group->rank)->cut))
        gone = SHM_CUT;
    if (gone == SHM_OK)
        return;
    if (in->errand != NULL)
        shm_mail_give_up(mail, in->errand, gone);
    if (in->aside != NULL && in->aside->claimed != NULL)
        shm_mail_give_up(mail, in->aside->claimed, gone);
    fail_asked(mail, (int)peer, gone);
    if (gone != SHM_BROKEN) { /* nothing follows */
        mail->busy -= (uint32_t)in->busy;
        in->busy = 0;
    }
}

/* Those that were put aside, and the ones at the front of the lanes. */
int shm_mail_arrived(shm_mail *mail, shm_envelope *envelopes, int *sources, int most) {
    int count = 0;
    shm_hand_lock(&mail->hand);
    for (const shm_aside *aside = mail->asides; aside != NULL && count < most; aside = aside->next)
        if (aside->claimed == NULL) {
            sources[count] = aside->source;
            envelopes[count++] = aside->envelope;
        }
    for (uint32_t peer = 0; peer < mail->group->world && count < most; peer++)
        if (!mail->in[peer].busy && shm_mail_readable(mail, (int)peer)) {
            sources[count] = (int)peer;
            envelopes[count++] = *envelope_at(mail, peer, mail->group->rank, mail->in[peer].tail);
        }
    shm_hand_unlock(&mail->hand);
    return count;
}
