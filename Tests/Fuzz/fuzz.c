/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz [-s SEED] [-n CALLS] [-t SECONDS] [-j THREADS] [-p PLACEMENT] [-e ENVIRONMENT] [-d DIGESTS] [-o NUMBER] [FILE...]
 *
 * Makes random calls of every function, until there were enough or the time is over, and dies at the first that is at
 * fault. FILES are inputs of the guided fuzzer, one call each. -o makes one call alone, as a fault names it. -d writes
 * eight bytes for each call, to be compared with those of another instruction set, placement or environment. */
#include "digest.h"
#include "perform.h"

#include <time.h>
#include <unistd.h>

static FILE *digests;

static int is_one;

static void one_call(void) {
    draw_call();
    bn_status status = perform();
    uint64_t digest = digest_of_call(status);
    if (is_one) describe(status == BN_OK ? "is the status" : bn_last_error(), bn_status_string(status));
    if (digests != NULL && fwrite(&digest, sizeof digest, 1, digests) != 1) misuse("the digests cannot be written");
}

static void call_of_file(const char *path) {
    static uint8_t bytes[1 << 16];
    FILE *file = fopen(path, "rb");
    if (file == NULL) misuse(path);
    size_t count = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    draw_from_bytes(bytes, count);
    one_call();
}

static void report(unsigned long long calls, double seconds) {
    printf("%llu calls in %.0f s, seed %llu, %s, %d threads:", calls, seconds, call_seed, bn_isa_name(), bn_get_num_threads());
    for (int i = 0; i < 64; i++) {
        if (statuses[i] > 0) printf(" %lu %s%s", statuses[i], bn_status_string((bn_status)i), i < 42 ? "," : "");
    }
    printf("\n");
    for (int i = 0; i < function_count; i++) {
        printf("  %-22s %lu of %lu succeeded\n", function_names[i], succeeded[i], of_function[i]);
    }
}

int main(int argc, char **argv) {
    unsigned long long calls = 0, only = 0;
    double seconds = 0;
    int option;
    call_seed = 1;
    while ((option = getopt(argc, argv, "s:n:t:j:p:e:d:o:")) != -1) {
        switch (option) {
        case 's': call_seed = strtoull(optarg, NULL, 10); break;
        case 'n': calls = strtoull(optarg, NULL, 10); break;
        case 't': seconds = strtod(optarg, NULL); break;
        case 'j': threads_asked = atoi(optarg); break;
        case 'p': placement_for_all = atoi(optarg); break;
        case 'e': environment = (enum environment)atoi(optarg); break;
        case 'd': digests = fopen(optarg, "wb"); break;
        case 'o': only = strtoull(optarg, NULL, 10), is_one = 1; break;
        default: return 2;
        }
    }
    make_room();
    if (threads_asked > 0) bn_set_num_threads(threads_asked);
    for (int i = optind; i < argc; i++) call_of_file(argv[i]);
    time_t start = time(NULL);
    if (is_one) calls = only + 1;
    for (call_number = is_one ? only : 0; calls > 0 ? call_number < calls : difftime(time(NULL), start) < seconds; call_number++) {
        draw_from_seed(call_seed, call_number);
        one_call();
    }
    report(call_number, difftime(time(NULL), start));
    return digests != NULL && fclose(digests) != 0;
}
