/* SPDX-License-Identifier: Apache-2.0
 *
 * limits [SECONDS]: random calls of every function in little room. Where address space ends, a call does without more,
 * or is refused as a whole. Calls, first ones and errors among them, do with a stack of the 14 KiB that the header
 * states. And they take no more heap than some numbers per channel and row of groups, and some thousand per thread at
 * work. */
#define _GNU_SOURCE
#include "calls.h"

#include <sys/resource.h>
#include <ucontext.h>

enum { of_each = 3, address_spaces = 8 };

static const char *const thread_numbers[] = {"1", "2", "3"};

/* ---- Address space ---- */

/* A hole in a heap that is full but for some holes of each size. */
typedef struct hole {
    struct hole *next;
} hole;
static const size_t hole_sizes[] = {1 << 20, 1 << 16, 1 << 14, 1 << 12, 1 << 10, 1 << 8, 1 << 6, 1 << 5};
enum { hole_kinds = sizeof hole_sizes / sizeof hole_sizes[0] };
static unsigned space;

static void limit_address_space(rlim_t bytes) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0) misuse("no limits here");
    limit.rlim_cur = bytes;
    if (setrlimit(RLIMIT_AS, &limit) != 0) misuse("cannot be limited");
}

static void fill_heap(hole *filled[hole_kinds]) {
    for (int i = 0; i < hole_kinds; i++) {
        filled[i] = NULL;
        for (hole *h; (h = malloc(hole_sizes[i])) != NULL; filled[i] = h) h->next = filled[i];
    }
}

static void empty(hole **filled, unsigned count) {
    while (*filled != NULL && count-- > 0) {
        hole *h = *filled;
        *filled = h->next;
        free(h);
    }
}

/* None, then a few and more of them. */
static void make_holes(hole *filled[hole_kinds]) {
    for (int i = hole_kinds - 1; i >= 0; i--) {
        if (space > 0) empty(&filled[i], (unsigned)noise() % (1u << space));
    }
}

static void call_in_little_space(void) {
    hole *filled[hole_kinds];
    take_snapshots();
    take_some_keys();
    interposed.processors = 4;
    fail_nothing();
    limit_address_space(0);
    fill_heap(filled);
    make_holes(filled);
    bn_status status = make_interposed_call();
    const char *message = bn_last_error();
    limit_address_space(RLIM_INFINITY);
    for (int i = 0; i < hole_kinds; i++) empty(&filled[i], (unsigned)-1);
    if (message == NULL) fault("is NULL", "bn_last_error()");
    outcome->failed = status == BN_ERROR_MEMORY;
    expect(status, 1, "the call");
    expect_usual("the call with room");
}

static void in_address_spaces(void) {
    unsigned long refused = 0, made = 0;
    memset(drawn_so_far, 0, sizeof drawn_so_far);
    while (!are_all_drawn(of_each) || !is_time_over(1.0 / 3)) {
        draw_next_call(of_each);
        for (space = 0; space < address_spaces; space++) {
            outcome->failed = 0;
            CHECK(in_processes(call_in_little_space, thread_numbers[call_number % 3]), "call %llu, in space %u: %s",
                  call_number, space, function_names[k.function]);
            refused += (unsigned long)outcome->failed, made += !outcome->failed;
        }
    }
    injected += refused;
    CHECK(refused > 0 && made > 0, "%lu were refused, %lu were not", refused, made);
}

/* ---- Stack ---- */

/* promised: by the header. own: the frames of what makes the call. */
enum { promised = 14 * 1024, own = 512, guard = 1 << 16, of_stack = 1 << 16 };
static size_t stack_bytes;
static ucontext_t here, there;
static bn_status status_there;

static void make_call_there(void) { status_there = make_call(); }

/* With exactly so many bytes above a page that may not be touched. */
static void call_on_small_stack(void) {
    char *memory = mmap(NULL, guard + of_stack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + guard, of_stack, PROT_READ | PROT_WRITE) != 0) misuse("no stack");
    take_snapshots();
    interposed.processors = 4;
    fail_nothing();
    for (int round = 0; round < 3; round++) {
        restore();
        if (getcontext(&there) != 0) misuse("no context");
        there.uc_stack.ss_sp = memory + guard;
        there.uc_stack.ss_size = stack_bytes + own;
        there.uc_link = &here;
        makecontext(&there, make_call_there, 0);
        if (swapcontext(&here, &there) != 0) misuse("no context");
        examine_memory(status_there);
        expect(status_there, 0, "the call on a small stack");
    }
}

static void on_small_stacks(void) {
    memset(drawn_so_far, 0, sizeof drawn_so_far);
    while (!are_all_drawn(2 * of_each) || !is_time_over(2.0 / 3)) {
        draw_next_call(2 * of_each);
        stack_bytes = promised;
        CHECK(in_processes(call_on_small_stack, thread_numbers[call_number % 3]), "call %llu: %s", call_number,
              function_names[k.function]);
        stack_bytes = 0;
        CHECK(!in_process(call_on_small_stack, "1"), "call %llu: %s needs no stack", call_number,
              function_names[k.function]);
    }
}

/* ---- Heap ---- */

/* Numbers per channel and row of groups; per column, which each element of a plane is where there are no more than
 * `short_plane`; bytes per thread, and of what a thread keeps in any case. */
enum { per_row = 16, per_column = 12, short_plane = 32, per_thread = 24 << 10, in_any_case = 32 << 10 };

/* Blocks of a reduction, of which each has its own sums where several threads share a channel. */
static size_t most_partial_sums(void) {
    return k.shape.inner <= short_plane ? 2 + k.shape.outer / 1024 : 2 + positions() / 8192;
}

static size_t most_bytes(int threads) {
    int is_spread = takes_tensors(k.function) && k.shape.inner <= short_plane && k.shape.inner > 0;
    size_t channels = takes_tensors(k.function) ? k.shape.channels : k.channels;
    size_t columns = channels * (is_spread ? k.shape.inner : 1) + 512;
    size_t blocks_at_once = threads > 1 && takes_tensors(k.function) ? most_partial_sums() : 1;
    size_t groups = k.options.groups != NULL ? k.groups.groups : 1;
    return in_any_case + (size_t)threads * per_thread + k.groups.samples +
           8 * (per_row * channels * (1 + groups) + per_column * columns * blocks_at_once + 16 * most_partial_sums());
}

static void *call_in_new_thread(void *unused) {
    interpose();
    bn_status status = make_call();
    leave_alone();
    expect(status, 0, "the call");
    outcome->bytes = interposed.bytes;
    return unused;
}

static void ask_for_little(void) {
    pthread_t thread;
    take_snapshots();
    interposed.processors = 4;
    fail_nothing();
    interpose();
    if (bn_isa_name() == NULL) fault("is NULL", "bn_isa_name()");
    if (pthread_create(&thread, NULL, call_in_new_thread, NULL) != 0) misuse("no thread");
    pthread_join(thread, NULL);
}

static void of_little_heap(void) {
    double fullest = 0;
    memset(drawn_so_far, 0, sizeof drawn_so_far);
    while (!are_all_drawn(2 * of_each) || !is_time_over(1)) {
        draw_next_call(2 * of_each);
        int threads = 1 + (int)(call_number % 3);
        CHECK(in_processes(ask_for_little, thread_numbers[threads - 1]), "call %llu: %s", call_number,
              function_names[k.function]);
        size_t bytes = (size_t)outcome->bytes, most = most_bytes(threads);
        int is_far_too_large = what_is_wrong.kind == A_FIELD;
        CHECK(is_far_too_large || bytes <= most, "call %llu: %zu bytes, where %zu are enough: %s, %zu x %zu x %zu",
              call_number, bytes, most, function_names[k.function], k.shape.outer, k.shape.channels, k.shape.inner);
        if (!is_far_too_large && (double)bytes > fullest * (double)most) fullest = (double)bytes / (double)most;
    }
    CHECK(fullest > 0.3, "at most %.2f of what was said to be enough is used, which says little", fullest);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    RUN(in_address_spaces);
    RUN(on_small_stacks);
    RUN(of_little_heap);
    say_figures();
    return finish();
}
