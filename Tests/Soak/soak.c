/* SPDX-License-Identifier: Apache-2.0
 *
 * soak [-s SEED] [-t SECONDS] [-j THREADS] [-o LIFE]
 *
 * Layers of chance live one after the other, each beside its twin, until the time is over; the first lives, whose
 * digests are kept, are then lived again. After a tenth of the time nothing that the process holds may grow any more.
 * Ends with the first life that is at fault; -o lives it alone. */
#include "life.h"
#include "watch.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

/* Bytes: of pages that blocks of other sizes keep apart, and of what a thread needs for its largest call. */
enum { lives_repeated = 20, lives_of_a_thread = 10, pages_allowed = 256 << 10, blocks_allowed = 16 << 10 };

static unsigned long long lives;
static uint64_t digests[lives_repeated];

static double since(time_t began) { return difftime(time(NULL), began); }

static uint64_t one_life(unsigned long long number, int threads) {
    unsigned long failed = checks_failed;
    if (bn_set_num_threads(1 + threads % most_threads) != BN_OK) abort();
    uint64_t digest = live(number);
    if (checks_failed == failed) return digest;
    unsigned long long of = seed;
    fprintf(stderr, "life %llu of seed %llu: -s %llu -o %llu\n", number, of, of, number);
    exit(1);
}

static void *next_lives(void *unused) {
    for (int i = 0; i < lives_of_a_thread; i++, lives++) {
        uint64_t digest = one_life(lives, (int)(lives % 1000));
        if (lives < lives_repeated) digests[lives] = digest;
    }
    return unused;
}

static void *first_lives(void *unused) {
    for (int i = 0; i < lives_repeated; i++) {
        CHECK(one_life((unsigned)i, i + 1) == digests[i], "life %d has other bits than at the beginning", i);
    }
    return unused;
}

/* In a thread of its own, which leaves nothing behind: what the library keeps for the largest call of a thread goes
 * with the thread, so that whatever is left is lost. */
static void in_a_thread(void *(*lives_of)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, lives_of, NULL) != 0 || pthread_join(thread, NULL) != 0) abort();
}

int main(int argc, char **argv) {
    double seconds = 20;
    int option;
    while ((option = getopt(argc, argv, "s:t:j:o:")) != -1) {
        switch (option) {
        case 's': seed = strtoull(optarg, NULL, 10); break;
        case 't': seconds = strtod(optarg, NULL); break;
        case 'j': most_threads = atoi(optarg); break;
        case 'o': one_life(strtoull(optarg, NULL, 10), 0); return 0;
        default: return 2;
        }
    }
    mallopt(M_ARENA_MAX, 1); /* of which mallinfo2 tells */
    time_t began = time(NULL);
    holding warm = {0, 0, 0, 0};
    while (warm.threads == 0 || since(began) < 0.9 * seconds) {
        in_a_thread(next_lives);
        if (warm.threads == 0 && lives >= lives_repeated && since(began) >= 0.1 * seconds) warm = look();
    }
    in_a_thread(first_lives);
    holding cold = look();
    long pages = cold.resident - warm.resident, blocks = cold.used - warm.used;
    CHECK(pages <= pages_allowed, "%ld bytes more are resident", pages);
    CHECK(blocks <= blocks_allowed * most_threads, "%ld bytes more are in use", blocks);
    CHECK(cold.files == warm.files, "%d files are open, %d were", cold.files, warm.files);
    CHECK(cold.threads <= most_threads, "there are %d threads", cold.threads);
    printf("%llu steps, %llu lives, %llu calls, %lu values compared, %.0f s, seed %llu, %s\n", steps_made, lives,
           calls_made, checks_made, since(began), (unsigned long long)seed, bn_isa_name());
    printf("memory grew by %ld bytes, blocks in use by %ld; %d files, %d threads\n", pages, blocks, cold.files,
           cold.threads);
    printf("the twin and the library were apart by %.3f of what they may be\n", most_of_allowed);
    return checks_failed > 0;
}
