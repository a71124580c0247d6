/* SPDX-License-Identifier: Apache-2.0
 *
 * files [SECONDS]: the files of the system, which say how many processors a process is granted and how large the
 * caches are, short, or full of anything. The library honours a grant that is written as
 * Linux writes it; no file changes a bit of a result. nth.c is about files that are not there. */
#define _GNU_SOURCE
#include "calls.h"

#include <errno.h>

enum { of_each = 1, faked_processors = 16, most_text = 200 };

/* Granted by the text of every file at once: of `cpu.max` where it is of two words, as version 2 of cgroups has it,
 * else of `cpu.cfs_quota_us` and `cpu.cfs_period_us`, whose quotient is then 1. */
static const struct {
    const char *text;
    int threads;
} told[] = {
    {"max 100000\n", 16}, {"150000 100000\n", 2}, {"100000 100000\n", 1}, {"100001 100000\n", 2}, {"1 100000\n", 1},
    {"1600000 100000\n", 16}, {"1500001 100000\n", 16}, {"1500000 100000\n", 15}, {"999999999 1\n", 16},
    {"1 999999999\n", 1}, {"100000\n", 1}, {"-1\n", 16},
    /* of no meaning */
    {"", 16}, {"\n", 16}, {"0 100000\n", 16}, {"100000 0\n", 16}, {"0\n", 16}, {"150000 100000", 16}, {"150000", 16},
    {"150000  100000\n", 16}, {" 150000 100000\n", 16}, {"-150000 100000\n", 16}, {"1e5 100000\n", 16},
    {"150000 max\n", 16}, {"1000000000 100000\n", 16}, {"99999999999999999999 100000\n", 16}, {"150000\t100000\n", 16},
    {"150000 100000 1\n", 16}, {"0x10 1\n", 16}, {"\377\377\377\377", 16},
};

static int told_number;

static void ask_for_threads(void) {
    unsetenv("BATCHNORM_NUM_THREADS");
    interposed.processors = faked_processors;
    fail_nothing();
    interpose();
    int threads = bn_get_num_threads();
    leave_alone();
    if (interposed.seen[OPEN] == 0) misuse("no file was opened");
    if (threads == told[told_number].threads) return;
    fprintf(stderr, "%d threads where %d are granted\n", threads, told[told_number].threads);
    abort();
}

static void of_threads(void) {
    for (told_number = 0; told_number < (int)(sizeof told / sizeof told[0]); told_number++) {
        interposed.text = told[told_number].text;
        interposed.text_bytes = strlen(interposed.text);
        CHECK(in_process(ask_for_threads, "1"), "every file says \"%s\"", interposed.text);
    }
    interposed.text = NULL;
}

/* ---- Any text ---- */

static char text[most_text];

/* Pieces of what these files hold, and bytes. */
static void draw_text(void) {
    static const char *const pieces[] = {
        "0", "1", "99999", "999999999", "max", " ", "\n", "K", "-", "32K\n", "100000", "4294967296",
    };
    size_t length = 0, end = noise() % most_text;
    while (length < end) {
        const char *piece = pieces[noise() % (sizeof pieces / sizeof pieces[0])];
        if (noise() % 4 == 0) text[length++] = (char)noise();
        else while (*piece != '\0' && length < end) text[length++] = *piece++;
    }
    interposed.text = text;
    interposed.text_bytes = length;
    interposed.longest_read = noise() % 3 == 0 ? 1 + noise() % 5 : 0;
}

static void call_with_files(void) {
    unsetenv("BATCHNORM_NUM_THREADS");
    take_snapshots();
    interposed.processors = faked_processors;
    fail_nothing();
    bn_status status = make_interposed_call();
    expect(status, 0, "the call");
    if (interposed.seen[OPEN] == 0) misuse("no file was opened");
    int threads = bn_get_num_threads();
    if (threads < 1 || threads > faked_processors) fault("is out of range", "bn_get_num_threads()");
    expect_usual("the next call");
}

static void of_any_text(void) {
    memset(drawn_so_far, 0, sizeof drawn_so_far);
    while (!are_all_drawn(of_each) || !is_time_over(1)) {
        draw_next_call(of_each);
        interposed.text = NULL;
        CHECK(in_process(learn, "1"), "call %llu: %s", call_number, function_names[k.function]);
        for (int i = 0; i < 4; i++) {
            draw_text();
            CHECK(in_process(call_with_files, "1"), "call %llu, text %d: %s", call_number, i,
                  function_names[k.function]);
            injected += 1;
        }
    }
}

int main(int argc, char **argv) {
    begin(argc, argv);
    RUN(of_threads);
    RUN(of_any_text);
    say_figures();
    return finish();
}
