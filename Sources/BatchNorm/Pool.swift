// SPDX-License-Identifier: Apache-2.0
import CKernels
import Synchronization

/// Work in numbered items, any of which may run on any thread. The items, not the threads, decide how a result is put
/// together, so that it does not depend on how many threads there were.
struct Job {
    let count: Int
    let context: UnsafeRawPointer
    /// Takes the context, the number of an item and that of the worker, which is less than the number of threads asked for.
    /// A C function, as there is no memory to be had for a closure.
    typealias Body = @convention(c) (UnsafeRawPointer, _ item: Int, _ worker: Int) -> Void
    let body: Body
    /// Rounding and the treatment of subnormal numbers are the caller's on every thread.
    fileprivate let floats = machine_float_state()

    fileprivate init(count: Int, context: UnsafeRawPointer, body: Body) {
        self.count = count
        self.context = context
        self.body = body
    }
}

/// The library's own threads: none until the first job that wants them, parked between jobs, never joined. They serve
/// one caller at a time; another one that comes meanwhile does its work alone.
struct Pool {
    static let maximum = 1024

    /// What threads change under each other's feet. Both parts are in one place for good, and reached by pointer alone.
    private struct Flags: ~Copyable {
        let busy = Atomic<Bool>(false)
        let next = Atomic<Int>(0)
    }

    /// What they change one at a time, holding the mutex.
    private struct State {
        var mutex = pthread_mutex_t()
        var opened = pthread_cond_t()
        var left = pthread_cond_t()
        var workers = 0
        var job: Job?
        var openings = 0
        var inside = 0
        var watchesForks = false
    }

    private let flags: UnsafeMutablePointer<Flags>
    private let state: UnsafeMutablePointer<State>
    /// From the one to the other: a cache line of their own for the flags.
    private static let distance = 64

    /// Nil if there is no memory.
    init?() {
        guard let memory = malloc(Pool.distance + MemoryLayout<State>.size) else { return nil }
        self.init(at: memory)
        flags.initialize(to: Flags())
        state.initialize(to: State())
        reset()
    }

    fileprivate init(at memory: UnsafeMutableRawPointer) {
        flags = memory.assumingMemoryBound(to: Flags.self)
        state = (memory + Pool.distance).assumingMemoryBound(to: State.self)
    }

    /// For a pool that never ran anything.
    func discard() { free(flags) }

    /// Runs all items, on up to `threads` threads with the caller's among them, and returns when the last one is done.
    func run(
        _ count: Int, _ context: UnsafeRawPointer, threads: Int,
        _ body: Job.Body
    ) {
        let helpers = min(threads, count) - 1
        guard helpers > 0, !flags.pointee.busy.exchange(true, ordering: .acquiring) else {
            for item in 0..<count { body(context, item, 0) }
            return
        }
        let job = Job(count: count, context: context, body: body)
        open(job, helpers)
        work(job, worker: 0)
        close()
        flags.pointee.busy.store(false, ordering: .releasing)
    }

    private func open(_ job: Job, _ helpers: Int) {
        flags.pointee.next.store(0, ordering: .relaxed)
        pthread_mutex_lock(&state.pointee.mutex)
        if !state.pointee.watchesForks {
            // A child has none of its parent's threads, and its copy of the lock may be held by one of them.
            state.pointee.watchesForks = pthread_atfork(nil, nil) { Library.shared?.pointee.pool.reset() } == 0
        }
        while state.pointee.workers < helpers, threads_start(serve, flags) == 0 { state.pointee.workers += 1 }
        state.pointee.job = job
        state.pointee.openings = helpers
        pthread_cond_broadcast(&state.pointee.opened)
        pthread_mutex_unlock(&state.pointee.mutex)
    }

    /// Waits for those who came in, and for nobody who was too late.
    private func close() {
        pthread_mutex_lock(&state.pointee.mutex)
        state.pointee.openings = 0
        while state.pointee.inside > 0 { pthread_cond_wait(&state.pointee.left, &state.pointee.mutex) }
        state.pointee.job = nil
        pthread_mutex_unlock(&state.pointee.mutex)
    }

    private func work(_ job: Job, worker: Int) {
        while case let item = flags.pointee.next.wrappingAdd(1, ordering: .relaxed).oldValue, item < job.count {
            job.body(job.context, item, worker)
        }
    }

    /// The life of a worker.
    fileprivate func attend() -> Never {
        pthread_mutex_lock(&state.pointee.mutex)
        while true {
            guard state.pointee.openings > 0, let job = state.pointee.job else {
                pthread_cond_wait(&state.pointee.opened, &state.pointee.mutex)
                continue
            }
            let worker = state.pointee.openings
            state.pointee.openings -= 1
            state.pointee.inside += 1
            pthread_mutex_unlock(&state.pointee.mutex)
            machine_set_float_state(job.floats)
            work(job, worker: worker)
            pthread_mutex_lock(&state.pointee.mutex)
            state.pointee.inside -= 1
            if state.pointee.inside == 0 { pthread_cond_signal(&state.pointee.left) }
        }
    }

    /// As it was before the first job.
    private func reset() {
        pthread_mutex_init(&state.pointee.mutex, nil)
        pthread_cond_init(&state.pointee.opened, nil)
        pthread_cond_init(&state.pointee.left, nil)
        state.pointee.workers = 0
        state.pointee.job = nil
        state.pointee.openings = 0
        state.pointee.inside = 0
        flags.pointee.busy.store(false, ordering: .relaxed)
    }
}

private func serve(_ pool: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    Pool(at: pool.unsafelyUnwrapped).attend()
}
