/* Which bytes of a ring the receiver writes. Arguments: the sizes of messages from rank 0 to rank 1.
 *
 * Both ranks are this one thread, which moves the mail of one after that of the other. The first message is asked for
 * when all others have been received. Whenever rank 1 is about to give room back, a line says which bytes of the ring
 * it has written since the sender wrote there last, and how many of the rest of the segment but its lane:
 * `tail before, tail then, bytes elsewhere: place place ...`. The last line has the number of messages that came as they
 * were sent. Built by test_changing_hands.py, with a mail.c that calls `gives_room`, and writes into a line what differs
 * from what was there.
 */
#define _GNU_SOURCE
#include "mail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOT 4096
#define MOST 32

void gives_room(const shm_mail *mail, int source, uint64_t tail);

static shm_group *groups[2];
static unsigned char *seen;

/* As rank 1 maps it. */
static unsigned char *segment(void) { return (unsigned char *)groups[1]->base; }

void gives_room(const shm_mail *mail, int source, uint64_t tail) {
    unsigned char *ring = mail->rings + (size_t)source * mail->group->world * mail->ring_bytes + mail->ring_bytes;
    shm_lane *lane = shm_lane_between(mail, (uint32_t)source, 1);
    size_t first = (size_t)(ring - segment()), its = (size_t)((unsigned char *)lane - segment()), elsewhere = 0;
    for (size_t i = 0; i < groups[1]->bytes; i++)
        elsewhere += segment()[i] != seen[i] && i - first >= mail->ring_bytes && i - its >= sizeof *lane;
    printf("%llu %llu %zu:", (unsigned long long)lane->tail, (unsigned long long)tail, elsewhere);
    for (size_t i = 0; i < mail->ring_bytes; i++)
        if (ring[i] != seen[first + i])
            printf(" %zu", i);
    printf("\n");
    memcpy(seen, segment(), groups[1]->bytes);
}

static void move(int rank) {
    memcpy(seen, segment(), groups[1]->bytes);
    shm_hand_lock(&groups[rank]->mail->hand);
    shm_mail_move(groups[rank]->mail);
    shm_hand_unlock(&groups[rank]->mail->hand);
}

static shm_errand *begun(int rank, int tag, size_t bytes) {
    shm_errand *errand = shm_errand_new(groups[rank]->mail, rank, 1 - rank);
    unsigned char *data = malloc(bytes + 1);
    if (errand == NULL || data == NULL)
        exit(2);
    memset(data, rank == 0 ? tag + 1 : 0, bytes + 1);
    errand->data = data;
    errand->envelope = (shm_envelope){.bytes = bytes, .numel = bytes, .tag = tag, .dtype = SHM_U8};
    shm_hand_lock(&groups[rank]->mail->hand);
    shm_mail_accept(groups[rank]->mail, errand);
    shm_hand_unlock(&groups[rank]->mail->hand);
    return errand;
}

static void open_both(void) {
    int memfd = memfd_create("ring_lines", MFD_CLOEXEC), nobody[2] = {-1, -1};
    if (memfd < 0 || ftruncate(memfd, (off_t)shm_bytes(2, SLOT)) != 0)
        exit(2);
    for (uint32_t rank = 0; rank < 2; rank++)
        if ((groups[rank] = shm_open_group(memfd, rank, 2, SLOT, nobody)) == NULL)
            exit(2);
    if ((seen = malloc(groups[1]->bytes)) == NULL)
        exit(2);
}

int main(int words, char **said) {
    shm_errand *sent[MOST], *received[MOST];
    int count = words - 1, finished = 0;
    if (count > MOST)
        return 2;
    open_both();
    for (int i = 1; i < count; i++)
        received[i] = begun(1, i, strtoull(said[i + 1], NULL, 10));
    for (int i = 0; i < count; i++) {
        sent[i] = begun(0, i, strtoull(said[i + 1], NULL, 10));
        for (int round = 0; round < 100 && !shm_is_finished(&sent[i]->request); round++) {
            move(0);
            move(1);
        }
    }
    received[0] = begun(1, 0, sent[0]->envelope.bytes);
    for (int i = 0; i < count; i++)
        finished += shm_is_finished(&received[i]->request) && received[i]->request.status == SHM_OK &&
                    memcmp(received[i]->data, sent[i]->data, sent[i]->envelope.bytes) == 0;
    printf("%d\n", finished);
    return 0;
}
